use super::*;

/// Key length of a block by its figures.
fn key_length(security: &Security, measured: &Measured) -> KeyLength {
    let Measured { key_bits, leaked_bits, verification_bits, check_bits, check_errors } = *measured;
    let evidence = Evidence::CheckBits { bits: check_bits, errors: check_errors };
    super::key_length(security, &evidence, &Reconciled { key_bits, key_errors: 0, leaked_bits, verification_bits })
}

/// What a block measured and gave away.
#[derive(Clone, Copy)]
struct Measured {
    key_bits: u64,
    leaked_bits: u64,
    verification_bits: u64,
    check_bits: u64,
    check_errors: u64,
}

fn security(bound: Bound, tolerated_qber: f64) -> Security {
    Security { bound, epsilon_secrecy: 1e-10, epsilon_correctness: 1e-15, tolerated_qber, emission: Emission::Pairs }
}

#[test]
fn thresholds_follow_the_efficiency() {
    let table = [(1.0, 11.00), (1.05, 10.60), (1.1, 10.23), (1.16, 9.81), (1.2, 9.55), (1.22, 9.42)];
    for (efficiency, percent) in table {
        let own = 100.0 * threshold_qber(efficiency);
        assert!((own - percent).abs() < 0.0051, "f {efficiency}: {own} %");
    }
}

#[test]
fn secret_fraction_of_the_nice_point() {
    // 15.7 kbit/s of sifted bits for a thousand seconds at QBERs 4.24 % and 4.7 %.
    for (efficiency, fraction) in [(1.1, 0.448), (1.06, 0.458)] {
        let n = 15_700_000u64;
        let measured = Measured {
            key_bits: n,
            leaked_bits: (efficiency * n as f64 * binary_entropy(0.0424)) as u64,
            verification_bits: 64,
            check_bits: n,
            check_errors: (0.047 * n as f64) as u64,
        };
        let length = key_length(&security(Bound::Asymptotic, 0.06), &measured);
        let own = length.chosen as f64 / n as f64;
        assert!((own - fraction).abs() < 0.002, "f {efficiency}: {own}");
    }
}

/// Expected key per sifted-plus-lost signal as Table II of Tomamichel et al. 2012 defines it: optimised over the
/// number of check bits and the tolerated error rate, times the chance that an honest block does not abort.
fn table_two_rate(n: f64, qber: f64) -> f64 {
    let mut best = 0.0f64;
    for i in 1..=160 {
        let k = libm::floor(n * 0.02 * libm::pow(1.05, f64::from(i)));
        let sent = (libm::sqrt(n) + libm::sqrt(k)) * (libm::sqrt(n) + libm::sqrt(k));
        for j in 1..=200 {
            let tolerated = qber * (1.0 + 0.02 * f64::from(j));
            let divergence = tolerated * libm::log(tolerated / qber)
                + (1.0 - tolerated) * libm::log((1.0 - tolerated) / (1.0 - qber));
            let kept = 1.0 - libm::exp(-k * divergence);
            let rate = kept * self_consistent_length(n, k, tolerated) / sent;
            best = best.max(rate);
        }
    }
    best
}

/// Length with `epsilon / length` fixed at 1e-14.
fn self_consistent_length(n: f64, k: f64, tolerated_qber: f64) -> f64 {
    let measured = Measured {
        key_bits: n as u64,
        leaked_bits: libm::ceil(1.1 * n * binary_entropy(tolerated_qber)) as u64,
        verification_bits: 0,
        check_bits: k as u64,
        check_errors: 0,
    };
    let mut length = 0.3 * n;
    for _ in 0..3 {
        let epsilon = 1e-14 * length.max(1.0);
        let security = Security {
            bound: Bound::Finite,
            epsilon_secrecy: 0.9 * epsilon,
            epsilon_correctness: 0.1 * epsilon,
            tolerated_qber,
            emission: Emission::Pairs,
        };
        length = key_length(&security, &measured).finite as f64;
    }
    length
}

#[test]
fn finite_bound_reproduces_table_two() {
    // Block, QBER, own figure with the same robustness bound, published figure and its tolerance.
    let table = [
        (1e4, 0.010, 13.6, 11.7, 0.20),
        (1e4, 0.025, 8.1, 6.8, 0.20),
        (1e5, 0.010, 31.5, 30.4, 0.05),
        (1e5, 0.025, 21.9, 21.5, 0.05),
        (1e6, 0.010, 48.3, 47.8, 0.02),
        (1e6, 0.025, 35.6, 35.7, 0.02),
    ];
    for (n, qber, reference, published, tolerance) in table {
        let own = 100.0 * table_two_rate(n, qber);
        println!("n {n:e} Q {qber}: {own:.2} %, reference {reference} %, published {published} %");
        assert!((own / reference - 1.0).abs() < 0.01, "n {n:e} Q {qber}: {own} against {reference}");
        assert!((own / published - 1.0).abs() < tolerance, "n {n:e} Q {qber}: {own} against {published}");
    }
}

#[test]
fn block_above_the_tolerated_error_rate_aborts() {
    let measured = Measured {
        key_bits: 100_000,
        leaked_bits: 20_000,
        verification_bits: 64,
        check_bits: 10_000,
        check_errors: 600,
    };
    let at_limit = key_length(&security(Bound::Asymptotic, 0.06), &measured);
    assert_eq!(at_limit.abort, None);
    assert!(at_limit.chosen > 0 && at_limit.chosen == at_limit.asymptotic);
    let above = Measured { check_errors: 601, ..measured };
    let above = key_length(&security(Bound::Asymptotic, 0.06), &above);
    assert_eq!((above.abort, above.chosen), (Some(AbortReason::CheckErrors), 0));
    assert!(above.asymptotic > 0, "both figures are shown even so");
}

#[test]
fn degenerate_blocks_give_no_key_and_say_why() {
    let nothing = Measured { key_bits: 0, leaked_bits: 0, verification_bits: 0, check_bits: 0, check_errors: 0 };
    let cases = [
        (nothing, AbortReason::NoKeyBits),
        (Measured { key_bits: 10, ..nothing }, AbortReason::NoCheckBits),
        (Measured { key_bits: 10, check_bits: 3, check_errors: 4, ..nothing }, AbortReason::Inconsistent),
        (Measured { key_bits: 10, check_bits: 3, leaked_bits: u64::MAX, ..nothing }, AbortReason::NothingLeft),
    ];
    for bound in [Bound::Asymptotic, Bound::Finite] {
        for (measured, reason) in cases {
            let length = key_length(&security(bound, 0.06), &measured);
            assert_eq!((length.abort, length.chosen), (Some(reason), 0));
        }
    }
}

#[test]
fn finite_is_below_asymptotic_and_approaches_it() {
    let mut last = 0.0;
    for exponent in 4..10 {
        let n = 10u64.pow(exponent);
        let measured = Measured {
            key_bits: n,
            leaked_bits: n / 4,
            verification_bits: 64,
            check_bits: n,
            check_errors: n * 4 / 100,
        };
        let length = key_length(&security(Bound::Finite, 0.04), &measured);
        assert!(length.finite <= length.asymptotic);
        let ratio = length.finite as f64 / length.asymptotic as f64;
        assert!(ratio >= last);
        last = ratio;
    }
    assert!(last > 0.99);
}

#[test]
fn epsilons_add_up() {
    let security = security(Bound::Finite, 0.06);
    assert!((total_epsilon(&security, 1000) - 1000.0 * (1e-10 + 1e-15)).abs() < 1e-20);
}

#[test]
fn a_block_without_key_says_which_term_took_it() {
    let good = Measured {
        key_bits: 100_000,
        leaked_bits: 30_000,
        verification_bits: 64,
        check_bits: 100_000,
        check_errors: 1000,
    };
    let cases = [
        (Measured { leaked_bits: 90_000, ..good }, 0.04, AbortReason::NothingLeft),
        (Measured { leaked_bits: 50_000, check_errors: 20_000, ..good }, 0.25, AbortReason::PhaseErrors),
        (
            Measured { key_bits: 100, leaked_bits: 30, check_bits: 100, check_errors: 1, ..good },
            0.04,
            AbortReason::ShortBlock,
        ),
    ];
    for (measured, tolerated, reason) in cases {
        let length = key_length(&security(Bound::Finite, tolerated), &measured);
        assert_eq!((length.abort, length.chosen), (Some(reason), 0));
    }
}

#[test]
fn figures_and_bounds_that_make_no_sense_are_a_reason_and_no_panic() {
    let good = Measured {
        key_bits: 100_000,
        leaked_bits: 30_000,
        verification_bits: 64,
        check_bits: 100_000,
        check_errors: 1000,
    };
    let sound = security(Bound::Finite, 0.04);
    assert_eq!(key_length(&sound, &good).abort, None);
    for epsilon in [0.0, 1.0, -1.0, f64::NAN, f64::INFINITY] {
        let secrecy = Security { epsilon_secrecy: epsilon, ..sound.clone() };
        let correctness = Security { epsilon_correctness: epsilon, ..sound.clone() };
        for unsound in [secrecy, correctness] {
            let length = key_length(&unsound, &good);
            assert_eq!((length.abort, length.chosen), (Some(AbortReason::Parameters), 0));
        }
    }
    let unsound = Security { tolerated_qber: f64::NAN, ..sound.clone() };
    assert_eq!(key_length(&unsound, &good).abort, Some(AbortReason::Parameters));
    for bound in [Bound::Lim2014, Bound::Rusca2018, Bound::Wiesemann2024] {
        let other = Security { bound, ..sound.clone() };
        assert_eq!(key_length(&other, &good).abort, Some(AbortReason::OtherBound));
    }
    let light = Evidence::SinglePhoton { pulses: 10, key: 5, check: Tally { bits: 3, errors: 0 } };
    let length = super::key_length(&sound, &light, &Reconciled { key_bits: 5, ..Reconciled::default() });
    assert_eq!(length.abort, Some(AbortReason::OtherLight));
}

#[test]
fn names_of_reasons_and_bounds_are_those_of_stored_files() {
    let text = |reason| serde_json::to_string(&reason).unwrap();
    for (reason, name) in [
        (AbortReason::NoKeyBits, "no-key-bits"),
        (AbortReason::NoCheckBits, "no-check-bits"),
        (AbortReason::Inconsistent, "inconsistent"),
        (AbortReason::CheckErrors, "check-errors"),
        (AbortReason::NothingLeft, "nothing-left"),
    ] {
        assert_eq!(text(reason), format!("\"{name}\""));
    }
    // As releases without decoys wrote it.
    let stored = r#"{"bound":"finite","epsilon_secrecy":1e-10,"epsilon_correctness":1e-15,"tolerated_qber":0.08}"#;
    let read: Security = serde_json::from_str(stored).unwrap();
    assert_eq!(read, security(Bound::Finite, 0.08));
    assert_eq!(serde_json::to_string(&read).unwrap(), stored);
}
