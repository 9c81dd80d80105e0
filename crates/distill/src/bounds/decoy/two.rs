//! Two decoys, of which the weaker one may be the vacuum.
//!
//! Lim et al., PRA 89, 022307 (2014), equations (2) to (4); without uncertainty these are equations (21), (25) and (34)
//! of Ma et al., PRA 72, 012326 (2005). Lim's key basis X is the key basis here, whatever it is called. Lower bounds of
//! counts are taken as they are printed, below 0 too, which is the safe side.

use super::{Contributions, Rows, Statistics};

pub fn contributions(statistics: &Statistics<'_>, rows: &Rows) -> Contributions {
    let key = photons(statistics, rows.map(|row| row.key));
    let check = photons(statistics, rows.map(|row| row.check.bits));
    Contributions {
        vacuum: key.vacuum,
        single: key.single,
        check_single: check.single,
        check_single_errors: single_errors(statistics, rows.map(|row| row.check.errors)),
        vacuum_cost: key.vacuum,
    }
}

struct Photons {
    vacuum: f64,
    single: f64,
}

/// Equations (2) and (3).
fn photons(statistics: &Statistics<'_>, counts: [f64; 3]) -> Photons {
    let [u, v, w] = [0, 1, 2].map(|index| statistics.mean(index));
    let deviation = statistics.deviation(counts.iter().sum());
    let high = |index: usize| statistics.scaled(index, counts[index], deviation);
    let low = |index: usize| statistics.scaled(index, counts[index], -deviation);
    let empty = ((v * low(2) - w * high(1)) / (v - w)).max(0.0);
    let several = (v * v - w * w) / (u * u) * (high(0) - empty);
    let one = u / (u * (v - w) - v * v + w * w) * (low(1) - high(2) - several);
    Photons { vacuum: statistics.tau_0() * empty, single: statistics.tau_1() * one }
}

/// Equation (4).
fn single_errors(statistics: &Statistics<'_>, errors: [f64; 3]) -> f64 {
    let deviation = statistics.deviation(errors.iter().sum());
    let most = statistics.scaled(1, errors[1], deviation) - statistics.scaled(2, errors[2], -deviation);
    statistics.tau_1() * most / (statistics.mean(1) - statistics.mean(2))
}
