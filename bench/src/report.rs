//! From slices to the table.

use std::{fmt, time::Duration};

use crate::load::Answer;

/// The measurement of one slice of load on one gateway.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Slice {
    /// CPU of the gateway for each request, in microseconds.
    pub cpu: f64,
    /// Half of the requests took at most so long, in microseconds.
    pub p50: f64,
    /// Of a hundred requests 99 took at most so long, in microseconds.
    pub p99: f64,
}

/// The measurements at one gateway, one slice of each kind a round.
#[derive(Debug, Default)]
pub struct Row {
    /// The name that the table has for it.
    pub name: String,
    /// With JSON answers.
    pub json: Vec<Slice>,
    /// With streams of events.
    pub sse: Vec<Slice>,
    /// Resident memory at the end, in KiB.
    pub resident_kib: u64,
}

/// The quartiles of a ratio, or of a difference, over the rounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The lower and the upper quartile.
    pub quartiles: (f64, f64),
}

/// The markdown table, whose first row is what the ratios are to.
#[derive(Debug)]
pub struct Table<'a>(pub &'a [Row]);

// === impl Slice ===

impl Slice {
    /// A slice in which `requests` requests cost `cpu`, and single ones took `taken`.
    pub fn new(cpu: Duration, requests: usize, taken: &[Duration]) -> Self {
        let mut taken: Vec<f64> = taken.iter().map(|one| one.as_secs_f64() * 1e6).collect();
        Self {
            cpu: cpu.as_secs_f64() * 1e6 / requests as f64,
            p50: quantile(&mut taken, 0.5),
            p99: quantile(&mut taken, 0.99),
        }
    }
}

// === impl Row ===

impl Row {
    /// The slices of one kind.
    pub fn slices(&self, answer: Answer) -> &[Slice] {
        match answer {
            Answer::Json => &self.json,
            Answer::Sse => &self.sse,
        }
    }

    /// Keeps the next round's slice.
    pub fn push(&mut self, answer: Answer, slice: Slice) {
        match answer {
            Answer::Json => self.json.push(slice),
            Answer::Sse => self.sse.push(slice),
        }
    }

    /// CPU for each request in relation to `base`, round by round: what disturbs one round
    /// disturbs both.
    pub fn ratio(&self, base: &Self, answer: Answer) -> Spread {
        let rounds = self.slices(answer).iter().zip(base.slices(answer));
        Spread::of(rounds.map(|(own, base)| own.cpu / base.cpu).collect())
    }

    /// The cost beyond that of `less`, in parts of `base`, round by round.
    pub fn share(&self, less: &Self, base: &Self, answer: Answer) -> Spread {
        let rounds = self.slices(answer).iter().zip(less.slices(answer));
        let rounds = rounds.zip(base.slices(answer));
        Spread::of(
            rounds
                .map(|((own, less), base)| (own.cpu - less.cpu) / base.cpu)
                .collect(),
        )
    }

    fn median(&self, answer: Answer, part: impl Fn(&Slice) -> f64) -> f64 {
        let mut parts: Vec<f64> = self.slices(answer).iter().map(part).collect();
        quantile(&mut parts, 0.5)
    }

    fn cells(&self, base: &Self) -> Vec<String> {
        let mut cells = vec![self.name.clone()];
        for answer in [Answer::Json, Answer::Sse] {
            cells.push(format!("{:.1}", self.median(answer, |slice| slice.cpu)));
            cells.push(self.ratio(base, answer).to_string());
            cells.push(format!("{:.0}", self.median(answer, |slice| slice.p50)));
            cells.push(format!("{:.0}", self.median(answer, |slice| slice.p99)));
        }
        cells.push((self.resident_kib / 1024).to_string());
        cells
    }
}

/// The value below which the part `rank` of `values` lies (nearest rank); 0 of none.
pub fn quantile(values: &mut [f64], rank: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    let at = (last as f64 * rank).round() as usize;
    values.get(at).copied().unwrap_or_default()
}

// === impl Spread ===

impl Spread {
    /// The quartiles of these.
    pub fn of(mut values: Vec<f64>) -> Self {
        Self {
            median: quantile(&mut values, 0.5),
            quartiles: (quantile(&mut values, 0.25), quantile(&mut values, 0.75)),
        }
    }
}

/// With two digits after the point, unless told how many.
impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (lower, upper) = self.quartiles;
        let digits = f.precision().unwrap_or(2);
        write!(
            f,
            "{:.digits$} ({lower:.digits$}–{upper:.digits$})",
            self.median
        )
    }
}

// === impl Table ===

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(base) = self.0.first() else {
            return Ok(());
        };
        let titles = [
            "gateway", "JSON CPU", "to plain", "p50", "p99", "SSE CPU", "to plain", "p50", "p99",
            "MiB",
        ];
        let mut lines = vec![titles.map(str::to_owned).to_vec()];
        lines.extend(self.0.iter().map(|row| row.cells(base)));
        let widths: Vec<usize> = (0..titles.len())
            .map(|column| {
                let cells = lines.iter().map(|line| line[column].chars().count());
                cells.max().unwrap_or_default()
            })
            .collect();
        for (number, line) in lines.iter().enumerate() {
            for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
                match column {
                    0 => write!(f, "| {cell:width$} ")?,
                    _ => write!(f, "| {cell:>width$} ")?,
                }
            }
            writeln!(f, "|")?;
            if number == 0 {
                for (column, width) in widths.iter().enumerate() {
                    let end = if column == 0 { "-" } else { ":" };
                    write!(f, "|{}{end}", "-".repeat(width + 1))?;
                }
                writeln!(f, "|")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cpu: &[f64]) -> Row {
        let slice = |cpu: &f64| Slice {
            cpu: *cpu,
            p50: 1.0,
            p99: 2.0,
        };
        Row {
            json: cpu.iter().map(slice).collect(),
            ..Row::default()
        }
    }

    #[test]
    fn a_quantile_is_one_of_the_values() {
        let mut values = [3.0, 1.0, 2.0, 5.0, 4.0];
        assert_eq!(quantile(&mut values, 0.5), 3.0);
        assert_eq!(quantile(&mut values, 0.99), 5.0);
        assert_eq!(quantile(&mut [], 0.5), 0.0);
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        // A machine twice as slow in the second round changes no ratio.
        let ratio = row(&[13.0, 26.0, 13.0]).ratio(&row(&[10.0, 20.0, 10.0]), Answer::Json);
        assert_eq!(ratio.to_string(), "1.30 (1.30–1.30)");
    }

    #[test]
    fn a_share_is_what_one_costs_more_than_the_other() {
        let [more, less, base] = [[13.0, 26.0], [11.0, 22.0], [10.0, 20.0]].map(|cpu| row(&cpu));
        let share = more.share(&less, &base, Answer::Json);
        assert_eq!(share.to_string(), "0.20 (0.20–0.20)");
    }

    #[test]
    fn cpu_is_shared_by_the_requests() {
        let taken = [Duration::from_micros(7); 3];
        let slice = Slice::new(Duration::from_millis(1), 10, &taken);
        assert!((slice.cpu - 100.0).abs() < 1e-9 && (slice.p99 - 7.0).abs() < 1e-9);
    }
}
