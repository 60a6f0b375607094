//! The table: what was measured, the floor beside it, the budget, and whether it holds.

use serde_json::{Value, json};

/// What a figure may be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Budget {
    /// At most this many times the floor's median.
    TimesFloor(f64),
    /// At least this share of the floor's median: for rates.
    ShareOfFloor(f64),
    /// At most this.
    AtMost(f64),
    /// Shown for orientation.
    None,
}

/// One line.
#[derive(Debug, Clone)]
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) ours: Vec<f64>,
    pub(crate) floor: Vec<f64>,
    pub(crate) budget: Budget,
}

impl Figure {
    pub(crate) fn new(name: &'static str, unit: &'static str, ours: Vec<f64>) -> Self {
        Self { name, unit, ours, floor: Vec::new(), budget: Budget::None }
    }

    pub(crate) fn floor(self, floor: Vec<f64>) -> Self {
        Self { floor, ..self }
    }

    pub(crate) fn budget(self, budget: Budget) -> Self {
        Self { budget, ..self }
    }

    fn ratio(&self) -> Option<f64> {
        (!self.floor.is_empty()).then(|| median(&self.ours) / median(&self.floor))
    }

    fn holds(&self) -> Option<bool> {
        match self.budget {
            Budget::TimesFloor(most) => self.ratio().map(|ratio| ratio <= most),
            Budget::ShareOfFloor(least) => self.ratio().map(|ratio| ratio >= least),
            Budget::AtMost(most) => Some(median(&self.ours) <= most),
            Budget::None => None,
        }
    }

    fn budget_text(&self) -> String {
        match self.budget {
            Budget::TimesFloor(most) => format!("≤ {most} × floor"),
            Budget::ShareOfFloor(least) => format!("≥ {least} × floor"),
            Budget::AtMost(most) => format!("≤ {most} {}", self.unit),
            Budget::None => "–".to_owned(),
        }
    }
}

/// Prints the figures as a markdown table, or as JSON; returns whether all budgets hold.
#[expect(clippy::print_stdout, reason = "the table is what this program is for")]
pub(crate) fn print(figures: &[Figure], as_json: bool) -> bool {
    if as_json {
        let figures: Vec<Value> = figures.iter().map(to_json).collect();
        println!("{:#}", json!({ "schema": 1, "figures": figures }));
    } else {
        println!(
            "| figure | unit | n | mendd p50 (min–max) | floor p50 (min–max) | ratio | budget | holds |"
        );
        println!("|---|---|---:|---:|---:|---:|---:|---|");
        for figure in figures {
            println!(
                "| {} | {} | {} | {} | {} | {} | {} | {} |",
                figure.name,
                figure.unit,
                figure.ours.len(),
                spread(&figure.ours),
                spread(&figure.floor),
                figure.ratio().map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}")),
                figure.budget_text(),
                figure.holds().map_or("–", |holds| if holds { "yes" } else { "**no**" }),
            );
        }
    }
    figures.iter().all(|figure| figure.holds() != Some(false))
}

fn to_json(figure: &Figure) -> Value {
    let values = |values: &[f64]| {
        let (low, high) = ends(values);
        (!values.is_empty()).then(|| json!({ "p50": median(values), "min": low, "max": high }))
    };
    json!({
        "name": figure.name,
        "unit": figure.unit,
        "n": figure.ours.len(),
        "mendd": values(&figure.ours),
        "floor": values(&figure.floor),
        "ratio": figure.ratio(),
        "budget": figure.budget_text(),
        "holds": figure.holds(),
    })
}

fn spread(values: &[f64]) -> String {
    if values.is_empty() {
        return "–".to_owned();
    }
    let (low, high) = ends(values);
    if low == high {
        return number(low);
    }
    format!("{} ({}–{})", number(median(values)), number(low), number(high))
}

fn number(value: f64) -> String {
    let digits = match value.abs() {
        v if v >= 100.0 || v == 0.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

fn ends(values: &[f64]) -> (f64, f64) {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    (low, values.iter().copied().fold(f64::NEG_INFINITY, f64::max))
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
