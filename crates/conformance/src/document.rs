//! Documents made of a report: each a pure function of it. Writing them to files is left to `main`.

pub mod file;
pub mod junit;
pub mod matrix;
pub mod terminal;
