//! One decoy: the vacuum is bounded from above by the errors, because half of what comes without a photon is wrong.
//!
//! Rusca et al., APL 112, 171104 (2018), and Wiesemann et al., arXiv:2405.16578.

use super::{Contributions, Rows, Statistics};
use crate::bounds::Reconciled;

pub fn contributions(statistics: &Statistics<'_>, rows: &Rows, reconciled: &Reconciled<f64>) -> Contributions {
    let [signal, decoy, _] = rows;
    let key_counts = [signal.key, decoy.key];
    let check_counts = [signal.check.bits, decoy.check.bits];
    let check_errors = [signal.check.errors, decoy.check.errors];
    // Bits that were dropped may all have been wrong.
    let dropped = key_counts.iter().sum::<f64>() - reconciled.key_bits;
    let key_vacuum = match [signal.key_errors, decoy.key_errors] {
        [Some(of_signal), Some(of_decoy)] => vacuum_at_most(statistics, key_counts, [of_signal, of_decoy + dropped]),
        _ => vacuum_of_all_errors(statistics, key_counts, reconciled.key_errors + dropped),
    };
    let key = photons(statistics, key_counts, key_vacuum);
    let check = photons(statistics, check_counts, vacuum_at_most(statistics, check_counts, check_errors));
    Contributions {
        vacuum: key.vacuum,
        single: key.single,
        check_single: check.single,
        check_single_errors: single_errors(statistics, check_errors),
        vacuum_cost: key.vacuum_cost,
    }
}

struct Photons {
    vacuum: f64,
    single: f64,
    vacuum_cost: f64,
}

/// Bits of pulses without a photon by the errors of the decoy: `2 (tau_0 e^v / p_v m_v^+ + delta(n))`.
/// The decoy shows the vacuum better than the signal does, and which of the two is used is not left to the data.
fn vacuum_at_most(statistics: &Statistics<'_>, counts: [f64; 2], errors: [f64; 2]) -> f64 {
    let wrong = statistics.scaled(1, errors[1], statistics.deviation(errors.iter().sum()));
    2.0 * (statistics.tau_0() * wrong + statistics.deviation(counts.iter().sum()))
}

/// The same where it is not known which intensity the errors are of: `2 (m + delta(n))`.
fn vacuum_of_all_errors(statistics: &Statistics<'_>, counts: [f64; 2], errors: f64) -> f64 {
    2.0 * (errors + statistics.deviation(counts.iter().sum()))
}

fn photons(statistics: &Statistics<'_>, counts: [f64; 2], vacuum_at_most: f64) -> Photons {
    let [u, v] = [0, 1].map(|index| statistics.mean(index));
    let total: f64 = counts.iter().sum();
    let deviation = statistics.deviation(total);
    let [signal_high, decoy_low] =
        [statistics.scaled(0, counts[0], deviation), statistics.scaled(1, counts[1], -deviation)];
    let empty = (u * decoy_low - v * signal_high) / (u - v);
    let scale = statistics.tau_1() * u / (v * (u - v));
    let share = (u * u - v * v) / (u * u) / statistics.tau_0();
    let vacuum_cost = scale * share * vacuum_at_most.min(total);
    let single = scale * (decoy_low - v * v / (u * u) * signal_high) - vacuum_cost;
    Photons { vacuum: statistics.tau_0() * empty.max(0.0), single, vacuum_cost }
}

/// Bits of single photons that are wrong: at most.
fn single_errors(statistics: &Statistics<'_>, errors: [f64; 2]) -> f64 {
    let deviation = statistics.deviation(errors.iter().sum());
    let most = statistics.scaled(0, errors[0], deviation) - statistics.scaled(1, errors[1], -deviation);
    statistics.tau_1() * most / (statistics.mean(0) - statistics.mean(1))
}
