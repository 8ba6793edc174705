//! Latencies: recorded per thread, merged, turned into percentiles only where enough samples stand
//! behind them.

use crate::result::Percentiles;
use serde::{Deserialize, Serialize};

/// A histogram of nanoseconds with two significant digits: its error is below one per cent.
#[derive(Clone, Debug)]
pub struct Latencies(hdrhistogram::Histogram<u64>);

/// Longer than this counts as this: ten minutes.
const CEILING: u64 = 600_000_000_000;

/// Samples needed before a percentile has an upper 97.5 % bound at all (order statistics of the binomial).
const FOR_P99: u64 = 368;
const FOR_P99_9: u64 = 3_688;

impl Default for Latencies {
    #[expect(clippy::expect_used, reason = "constant bounds that the constructor accepts")]
    fn default() -> Self {
        Self(hdrhistogram::Histogram::new_with_bounds(1, CEILING, 2).expect("valid bounds"))
    }
}

impl Latencies {
    /// Adds a sample in nanoseconds.
    pub fn record(&mut self, ns: u64) {
        self.0.saturating_record(ns.clamp(1, CEILING));
    }

    /// Adds all samples of another histogram.
    pub fn merge(&mut self, other: &Latencies) {
        // Bounds are equal, so this cannot fail.
        let _ = self.0.add(&other.0);
    }

    /// How many samples.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The value below which this fraction of samples lies.
    pub fn quantile(&self, fraction: f64) -> u64 {
        self.0.value_at_quantile(fraction)
    }

    /// The distribution as a report shows it.
    pub fn percentiles(&self) -> Percentiles {
        let n = self.0.len();
        let at = |fraction| self.0.value_at_quantile(fraction);
        Percentiles {
            p50: at(0.5),
            p90: at(0.9),
            p99: (n >= FOR_P99).then(|| at(0.99)),
            p99_9: (n >= FOR_P99_9).then(|| at(0.999)),
            max: self.0.max(),
            mean: self.0.mean(),
            curve: self.curve(),
        }
    }

    /// The curve for the percentile chart, as far out as the samples carry it.
    fn curve(&self) -> Vec<(f64, u64)> {
        const FRACTIONS: [f64; 17] =
            [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975, 0.99, 0.995, 0.9975, 0.999, 0.9995, 0.9999, 0.99995, 0.99999, 0.999999];
        let n = self.0.len() as f64;
        let carried = |f: &&f64| n > 0.0 && (1.0 - **f) * n >= 1.0;
        FRACTIONS.iter().filter(carried).map(|&f| (f, self.0.value_at_quantile(f))).collect()
    }
}

/// A histogram on its way from one process to another: (value, count), rising.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Samples(Vec<(u64, u64)>);

impl From<&Latencies> for Samples {
    fn from(latencies: &Latencies) -> Self {
        Samples(latencies.0.iter_recorded().map(|v| (v.value_iterated_to(), v.count_at_value())).collect())
    }
}

impl From<&Samples> for Latencies {
    fn from(samples: &Samples) -> Self {
        let mut latencies = Latencies::default();
        for &(value, count) in &samples.0 {
            latencies.0.saturating_record_n(value.clamp(1, CEILING), count);
        }
        latencies
    }
}

/// The median; zero for no samples.
pub fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_absent_until_enough_samples_stand_behind_them() {
        let mut latencies = Latencies::default();
        (1..368).for_each(|ns| latencies.record(ns * 1000));
        assert_eq!(latencies.percentiles().p99, None);
        latencies.record(368_000);
        let p = latencies.percentiles();
        assert!((360_000..370_000).contains(&p.p99.unwrap()), "{p:?}");
        assert_eq!(p.p99_9, None);
    }

    #[test]
    fn a_histogram_survives_the_way_between_processes() {
        let mut latencies = Latencies::default();
        [1, 77, 4_096, 1_000_000, 5_000_000_000].into_iter().for_each(|ns| latencies.record(ns));
        let back = Latencies::from(&Samples::from(&latencies));
        assert_eq!(back.percentiles(), latencies.percentiles());
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 2.5);
        assert_eq!(median(&[]), 0.0);
    }
}
