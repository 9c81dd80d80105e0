//! Light as counts: sifted bits per second, both ends' halves together, as they go over the wire.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use photonics::expect::prepared::Inputs;
use photonics::expect::pulses::{PulseClass, PulsesInputs};
use photonics::expect::response::{BasisChoice, Counted, Receiver};
use photonics::expect::single_photon::SinglePhotonInputs;
use photonics::expect::{Bbm92Inputs, DetectorModel, Matching, predict};
use photonics::nature::counts::{Emitter, Half, Law};
use photonics::random::Subseed;
use std::hint::black_box;

fn receiver(error: f64, key_basis_probability: f64) -> Receiver {
    Receiver {
        transmission: 0.1,
        basis_choice: BasisChoice::Active,
        key_basis_probability: [key_basis_probability; 2],
        intrinsic_error: [error; 2],
        noise_probability: [4e-5; 2],
        afterpulse_probability: 0.0,
        hold_off_pulses: 0.0,
        counted: [Counted::ALL; 2],
    }
}

fn decoys(error: f64, key_basis_probability: f64, probabilities: [f64; 3]) -> Law {
    let classes = [0.425, 0.044, 0.001].into_iter().zip(probabilities);
    let classes = classes.map(|(mean_photons, probability)| PulseClass { mean_photons, probability }).collect();
    let receiver = receiver(error, key_basis_probability);
    Law::prepared(&Inputs::Pulses(PulsesInputs { pulse_rate_hz: 1e9, classes, receiver })).expect("possible rates")
}

fn single_photons() -> Law {
    let receiver = receiver(0.0566, 0.84);
    let inputs = SinglePhotonInputs { pulse_rate_hz: 75.947e6, mean_photons: 0.1, g2: 0.01, receiver };
    Law::prepared(&Inputs::SinglePhotons(inputs)).expect("possible rates")
}

fn pairs() -> Law {
    let inputs = Bbm92Inputs {
        pair_rate_hz: 3.05e8,
        transmission: [0.021; 2],
        z_probability: [0.5; 2],
        crosstalk: [0.01; 2],
        analyser_delay_ps: [400.0; 2],
        visibility: 0.97,
        mean_cos_phase: 1.0,
        detectors: [DetectorModel::default(), DetectorModel::default()],
        window_ps: 120.0,
        peak_fwhm_ps: 98.0,
        matching: Matching::default(),
    };
    Law::pairs(&predict(&inputs)).expect("possible rates")
}

fn counts(c: &mut Criterion) {
    let mut group = c.benchmark_group("counts");
    let biased = [1.0 - 3.0 / 256.0, 2.0 / 256.0, 1.0 / 256.0];
    for (name, law) in [
        ("decoys of 0.5 %", decoys(0.005, 0.9375, biased)),
        ("decoys of 4 %", decoys(0.04, 0.9375, biased)),
        ("decoys, even intensities", decoys(0.02, 0.7, [0.4, 0.35, 0.25])),
        ("single photons", single_photons()),
        ("pairs", pairs()),
    ] {
        // As many seconds as make a full slice.
        let epoch_ps = (1e12 * f64::from(1 << 20) / law.sifted_hz()) as u64;
        let emitter = Emitter::new(law, epoch_ps, &Subseed::new([1; 32]));
        group.throughput(Throughput::Elements(1 << 20));
        let mut epoch = 0;
        group.bench_function(format!("{name}, draw"), |b| {
            b.iter(|| {
                epoch += 1;
                black_box(emitter.slice(epoch, 0, 1))
            });
        });
        let slice = emitter.slice(0, 0, 1);
        group.bench_function(format!("{name}, encode and decode both"), |b| {
            b.iter(|| slice.halves.each_ref().map(|half| Half::decode(&half.encode()).expect("own bytes")));
        });
    }
    group.finish();
}

criterion_group!(benches, counts);
criterion_main!(benches);
