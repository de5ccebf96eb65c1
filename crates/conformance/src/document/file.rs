//! A report's file: opened before anything is made, so that one which cannot be written is found out then; empty from then on, so that a
//! run that crashes leaves no older report behind; replaced whole at the end.

use std::fs::File;
use std::io;
use std::path::PathBuf;

/// A file that can be written.
#[derive(Debug)]
pub struct ReportFile(PathBuf);

impl ReportFile {
    /// Opens and empties it.
    ///
    /// # Errors
    /// It cannot be made or written.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        File::create(&path)?;
        Ok(ReportFile(path))
    }

    /// Replaces its content at once, so that nobody reads half a report.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, document: &[u8]) -> io::Result<()> {
        let mut partial = self.0.clone().into_os_string();
        partial.push(".partial");
        std::fs::write(&partial, document)?;
        std::fs::rename(&partial, &self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_report_is_gone_once_the_file_is_open() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("junit.xml");
        std::fs::write(&path, "yesterday's").unwrap();
        let file = ReportFile::open(path.clone()).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"");
        file.write(b"today's").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"today's");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_directory_that_does_not_exist_is_found_out_at_once() {
        assert!(ReportFile::open("/nonexistent/junit.xml".into()).is_err());
    }
}
