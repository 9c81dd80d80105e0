//! How long the search for intensities and bases takes, and what one question of it costs.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use distill::config::{Bound, Security};
use photonics::expect::pulses::{PulseClass, PulsesInputs};
use photonics::expect::response::{BasisChoice, Counted, Receiver};
use topology::plan::{optimise, prepared};

/// Lucamarini et al., Opt. Express 21, 24550 (2013), over 65 km.
fn t12() -> PulsesInputs {
    let class = |mean_photons, probability| PulseClass { mean_photons, probability };
    PulsesInputs {
        pulse_rate_hz: 1e9,
        classes: vec![class(0.425, 253.0 / 256.0), class(0.044, 1.0 / 128.0), class(0.001, 1.0 / 256.0)],
        receiver: Receiver {
            transmission: 5.34e-3,
            basis_choice: BasisChoice::Active,
            key_basis_probability: [15.0 / 16.0; 2],
            intrinsic_error: [0.01277, 0.00616],
            noise_probability: [4.2e-5; 2],
            afterpulse_probability: 0.0525,
            hold_off_pulses: 0.0,
            counted: [Counted::ALL; 2],
        },
    }
}

fn search(criterion: &mut Criterion) {
    let inputs = t12();
    let emission = prepared::emission(&inputs).expect("three intensities");
    let security = Security {
        bound: Bound::Finite,
        epsilon_secrecy: 1e-10,
        epsilon_correctness: 1e-15,
        tolerated_qber: 0.1,
        emission,
    };
    let block = prepared::pulses(&inputs, 1.2e12, 1.1);
    criterion.bench_function("expected block", |b| b.iter(|| prepared::pulses(black_box(&inputs), 1.2e12, 1.1)));
    criterion.bench_function("bound of a block", |b| b.iter(|| black_box(&block).bounds(black_box(&security))));
    criterion.bench_function("search, two decoys", |b| {
        b.iter(|| optimise::decoys(black_box(&inputs), black_box(&security), 1200.0, 1.1));
    });
}

criterion_group!(benches, search);
criterion_main!(benches);
