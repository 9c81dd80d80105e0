//! How well lock is kept, and how it is lost and found again.

use super::*;

/// Absolute residuals of all measurements over full intervals, sorted.
fn residuals(link: Link, seconds: usize) -> Vec<f64> {
    let mut bench = Bench::new(link, config());
    let (mut residuals, mut measured) = (Vec::new(), 0);
    for step in 0..seconds * 50 {
        for judged in bench.step() {
            assert!(judged.result.locked || step < 50, "lock lost");
        }
        let status = bench.recovery.status();
        if status.measurements > measured && status.settled {
            residuals.push(status.residual_ps.abs());
        }
        measured = status.measurements;
    }
    assert_eq!(bench.recovery.status().losses, 0);
    residuals.sort_by(f64::total_cmp);
    residuals
}

fn p99(residuals: &[f64]) -> f64 {
    residuals[residuals.len() * 99 / 100]
}

#[test]
fn residual_stays_below_12_ps_with_drifting_clocks() {
    // Lower click rates than the real link's make the test shorter; the pairs are what counts.
    let link = Link {
        own_rate: 1e6,
        peer_rate: 1e6,
        offset_ps: 3.3e9,
        frequency: 1e-8,
        white_fm_ps_per_sqrt_s: 4.0,
        random_walk_fm: 0.3,
        ..Link::short(101)
    };
    let residuals = residuals(link, 40);
    assert!(residuals.len() > 70);
    assert!(p99(&residuals) < 12.0, "p99 {} ps", p99(&residuals));
}

#[test]
fn residual_stays_below_12_ps_on_a_weak_link() {
    let link = Link {
        own_rate: 2e6,
        frequency: -7e-8,
        offset_ps: -8e9,
        white_fm_ps_per_sqrt_s: 2.8,
        random_walk_fm: 0.05,
        ..Link::long(102)
    };
    let residuals = residuals(link, 40);
    assert!(p99(&residuals) < 12.0, "p99 {} ps", p99(&residuals));
}

#[test]
fn figures_of_the_peak_are_right() {
    for (link, fwhm_ps) in [(Link::short(111), 98.0), (Link::long(112), 207.0)] {
        let mut bench = Bench::new(shuffled(link), config());
        for _ in 0..120 {
            bench.step();
        }
        let status = bench.recovery.status();
        assert!((status.peak_fwhm_ps / fwhm_ps - 1.0).abs() < 0.1, "{} ps wide", status.peak_fwhm_ps);
        let link = &bench.streams.link;
        let accidental = link.own_rate * link.peer_rate * 120e-12;
        let inside = libm::erf(120.0 / fwhm_ps * core::f64::consts::LN_2.sqrt());
        let expected = accidental / (accidental + link.pair_rate / 2.0 * inside);
        let estimate = status.accidental_fraction_estimate;
        assert!((estimate / expected - 1.0).abs() < 0.1, "accidental {estimate}, expected {expected}");
    }
}

#[test]
fn lock_is_lost_after_a_clock_jump_and_found_again() {
    let mut bench = Bench::new(Link { own_rate: 3e6, peer_rate: 2e6, ..shuffled(Link::short(121)) }, config());
    for _ in 0..100 {
        bench.step();
    }
    assert_eq!(bench.recovery.status().state, LockState::Locked);
    bench.streams.jump(-2.5e6);
    for _ in 0..150 {
        bench.step();
    }
    let status = bench.recovery.status();
    assert_eq!((status.losses, status.acquisitions, status.state), (1, 2, LockState::Locked));
    let errors: u64 = bench.step().iter().map(|j| j.errors()[0].1).sum();
    assert!(errors < 30);
}

#[test]
fn a_jump_within_the_histogram_is_followed_at_once() {
    let mut bench = Bench::new(Link { own_rate: 3e6, peer_rate: 2e6, ..shuffled(Link::short(131)) }, config());
    for _ in 0..100 {
        bench.step();
    }
    bench.streams.jump(450.0);
    for _ in 0..150 {
        bench.step();
    }
    let status = bench.recovery.status();
    assert_eq!((status.losses, status.state), (0, LockState::Locked));
    assert!(status.residual_ps.abs() < 12.0, "{status:?}");
}

#[test]
fn the_same_pushes_give_the_same_results() {
    let run = || {
        let mut bench = Bench::new(Link { own_rate: 3e6, peer_rate: 2e6, ..shuffled(Link::short(141)) }, config());
        let mut results = Vec::new();
        for _ in 0..60 {
            for judged in bench.step() {
                let kept: Vec<_> = judged.result.kept.iter().map(|k| (k.index, k.basis, k.bit)).collect();
                results.push((judged.result.frame, judged.result.counts, kept));
            }
        }
        results
    };
    assert!(run() == run());
}
