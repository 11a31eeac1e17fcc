//! What was measured, beside what was to be reached.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// What a figure, or its ratio to something, is to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Goal {
    /// The ratio is at least this.
    RatioAtLeast(f64),
    /// The figure is at least this.
    AtLeast(f64),
    /// The figure is at most this.
    AtMost(f64),
    /// The ratio is at most this.
    RatioAtMost(f64),
    /// It is told for its own sake.
    Told,
}

impl Goal {
    fn is_met(self, figure: f64, ratio: Option<f64>) -> Option<bool> {
        match self {
            Self::RatioAtLeast(least) => ratio.map(|ratio| ratio >= least),
            Self::RatioAtMost(most) => ratio.map(|ratio| ratio <= most),
            Self::AtLeast(least) => Some(figure >= least),
            Self::AtMost(most) => Some(figure <= most),
            Self::Told => None,
        }
    }

    fn text(self, unit: &str) -> String {
        match self {
            Self::RatioAtLeast(least) => format!("≥ {least} ×"),
            Self::RatioAtMost(most) => format!("≤ {most} ×"),
            Self::AtLeast(least) => format!("≥ {least} {unit}"),
            Self::AtMost(most) => format!("≤ {most} {unit}"),
            Self::Told => String::new(),
        }
    }
}

/// A row of the table, with what each round brought.
#[derive(Debug)]
struct Row {
    name: String,
    of: String,
    unit: &'static str,
    goal: Goal,
    rounds: Vec<(f64, Option<f64>)>,
}

impl Row {
    fn figure(&self) -> f64 {
        median(self.rounds.iter().map(|(figure, _)| *figure))
    }

    fn ratio(&self) -> Option<f64> {
        let ratios: Option<Vec<f64>> = self.rounds.iter().map(|(_, ratio)| *ratio).collect();
        ratios.map(|ratios| median(ratios.into_iter()))
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The rows so far.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
}

impl Report {
    /// Notes what a round brought for a row. The ratio is to what the row's name says.
    pub(crate) fn add(
        &mut self,
        of: &str,
        name: &str,
        goal: Goal,
        unit: &'static str,
        figure: f64,
        ratio: Option<f64>,
    ) {
        // For who waits; the rows come at the end.
        let shown = ratio.map(|ratio| format!(", ratio {ratio:.2}")).unwrap_or_default();
        eprintln!("{of}: {name}: {} {unit}{shown}", number(figure));
        let known = self.rows.iter_mut().find(|row| row.name == name && row.of == of);
        match known {
            Some(row) => row.rounds.push((figure, ratio)),
            None => {
                let (name, of) = (name.to_owned(), of.to_owned());
                self.rows.push(Row { name, of, unit, goal, rounds: vec![(figure, ratio)] });
            }
        }
    }

    /// As Markdown: the median of the rounds, and every round.
    pub(crate) fn table(&self) -> String {
        let mut text = String::from(
            "| figure | of | goal | median | ratio | met | each round |\n|---|---|---|---:|---:|---|---|\n",
        );
        for row in &self.rows {
            let (figure, ratio) = (row.figure(), row.ratio());
            let met = match row.goal.is_met(figure, ratio) {
                Some(true) => "yes",
                Some(false) => "**no**",
                None => "",
            };
            let ratio_text = ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
            let by_ratio = matches!(row.goal, Goal::RatioAtLeast(_) | Goal::RatioAtMost(_));
            let rounds = row.rounds.iter().map(|(figure, ratio)| match ratio {
                Some(ratio) if by_ratio => format!("{ratio:.2}"),
                _ => number(*figure),
            });
            let rounds = rounds.collect::<Vec<_>>().join(", ");
            let (name, of, goal, unit) = (&row.name, &row.of, row.goal.text(row.unit), row.unit);
            let _ = writeln!(
                text,
                "| {name} | {of} | {goal} | {} {unit} | {ratio_text} | {met} | {rounds} |",
                number(figure)
            );
        }
        text
    }

    /// For programs.
    pub(crate) fn json(&self, machine: &Value) -> Value {
        let rows: Vec<_> = self
            .rows
            .iter()
            .map(|row| {
                let (figure, ratio) = (row.figure(), row.ratio());
                json!({
                    "name": row.name, "of": row.of, "unit": row.unit, "goal": row.goal.text(row.unit),
                    "figure": figure, "ratio": ratio, "met": row.goal.is_met(figure, ratio),
                    "rounds": row.rounds.iter().map(|(figure, ratio)| json!({"figure": figure, "ratio": ratio})).collect::<Vec<_>>(),
                })
            })
            .collect();
        json!({ "machine": machine, "rows": rows })
    }
}

/// Three digits that count.
fn number(value: f64) -> String {
    if value.abs() >= 100.0 {
        format!("{value:.0}")
    } else if value.abs() >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_the_median_of_its_rounds() {
        let mut report = Report::default();
        for (figure, ratio) in [(90.0, 0.9), (120.0, 1.2), (96.0, 0.96)] {
            report.add("SQLite", "sign-ins", Goal::RatioAtLeast(0.95), "/s", figure, Some(ratio));
        }
        report.add("SQLite", "memory", Goal::AtMost(64.0), "MiB", 65.0, None);
        let table = report.table();
        assert!(
            table.contains("| sign-ins | SQLite | ≥ 0.95 × | 96.0 /s | 0.96 | yes | 0.90, 1.20, 0.96 |"),
            "{table}"
        );
        assert!(table.contains("| memory | SQLite | ≤ 64 MiB | 65.0 MiB |  | **no** | 65.0 |"), "{table}");
    }
}
