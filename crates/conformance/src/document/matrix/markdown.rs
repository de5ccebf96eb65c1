//! The matrix as a table of Markdown: a row per fault, a column per check.

use crate::check;
use crate::selftest::Outcome;
use crate::selftest::matrix::{Matrix, Row, Standing};
use std::fmt::Write;
use std::time::Duration;

/// The document.
pub fn document(matrix: &Matrix, took: Duration) -> String {
    let ids: Vec<&str> = check::ALL.iter().map(|check| check.info().id).collect();
    table(matrix, took, &ids)
}

fn table(matrix: &Matrix, took: Duration, ids: &[&str]) -> String {
    let mut text = format!("# Planted faults\n\n{}\n\n", super::headline(matrix, took));
    // Writing to a String cannot fail, here and below.
    if let Some(beginning) = &matrix.beginning {
        let _ = writeln!(
            text,
            "{}, Kubernetes {}, {}\n",
            beginning.cluster, beginning.version, beginning.at
        );
    }
    let _ = writeln!(
        text,
        "F failed, ? inconclusive, empty passed; a and b are the fault's tenants.\n"
    );
    let _ = writeln!(text, "| fault | breaks | {} | |", ids.join(" | "));
    let _ = writeln!(text, "|---|---|{}---|", "---|".repeat(ids.len()));
    for row in &matrix.rows {
        let cells: Vec<String> = ids.iter().map(|id| cell(row, id)).collect();
        let breaks = row.planned.breaks.replace('|', "\\|");
        let _ = writeln!(
            text,
            "| {} | {breaks} | {} | {} |",
            row.planned.fault,
            cells.join(" | "),
            standing(row)
        );
    }
    text
}

/// `F a → b`; of what was expected, where nothing was seen here.
fn cell(row: &Row, id: &str) -> String {
    let seen = match row.trial.as_ref().map(|trial| &trial.outcome) {
        Some(Outcome::Judged { seen, .. }) => seen,
        None if row.planned.cluster.is_some() => &row.planned.expected,
        _ => return String::new(),
    };
    let marks = [("F", &seen.failed), ("?", &seen.inconclusive)];
    let told = marks.into_iter().flat_map(|(mark, items)| {
        let subjects = items
            .iter()
            .filter_map(|item| item.split_once(' '))
            .filter(|(check, _)| *check == id);
        subjects.map(move |(_, subject)| format!("{mark} {}", subject.replace("->", "→")))
    });
    told.collect::<Vec<_>>().join("<br>")
}

fn standing(row: &Row) -> String {
    match row.standing() {
        Standing::Exact => format!("exact{}", super::at_second(row)),
        Standing::Differs(differences) => {
            let told: Vec<String> = differences
                .iter()
                .map(|difference| {
                    format!(
                        "{}: expected {}, seen {}",
                        difference.item.replace("->", "→"),
                        difference.expected,
                        difference.seen
                    )
                })
                .collect();
            format!("**not exact**: {}", told.join("; "))
        }
        Standing::Elsewhere(state) => format!("not plantable here: {state}; as expected"),
        Standing::NotPlantable(_) => "**not planted**".to_owned(),
        Standing::Trouble(_) => "**trouble**".to_owned(),
        Standing::NotJudged => "not judged".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::selftest::matrix::tests::{judged, matrix};

    #[test]
    fn a_row_per_fault_and_a_column_per_check() {
        let outcomes = [
            Some(judged(&[], &[])),
            Some(judged(&["NET-03 a -> b", "QUO-01 a"], &["NET-02 a -> b"])),
            None,
        ];
        insta::assert_snapshot!(
            "selftest_markdown",
            table(
                &matrix(outcomes),
                Duration::from_secs(192),
                &["NET-01", "NET-02", "NET-03", "QUO-01"]
            )
        );
    }
}
