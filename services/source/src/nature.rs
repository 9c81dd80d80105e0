//! What a source makes, behind one face: the emission loop is the same for all.

use anyhow::{Result, bail};
use bytes::Bytes;
use photonics::analyser::AnalyserState;
use photonics::nature::pulses::ChoiceKey;
use photonics::nature::{pairs, pulses};
use photonics::photons::Photons;
use photonics::random::Subseed;
use proto::source::v1::AttachOutput;
use topology::plan::{Nature as Config, SourceConfig};

use crate::counted::Counted;

/// The light of one emission, from its first epoch on. What is secret of it is wiped when it is dropped.
pub enum Nature {
    /// A photon of each pair for either output.
    Pairs(Box<pairs::Emitter>),
    /// Output 0 is the transmitter, which says what the pulses are; output 1 is the receiver, which gets what arrives.
    Pulses(Box<pulses::Emitter>),
    /// Either of them as counts.
    Counts(Box<Counted>),
}

/// What an output gets of an epoch: raw key, which nothing prints.
#[derive(Clone, Default)]
pub struct Light {
    pub photons: Photons,
    /// In place of photons: the output's part of each slice.
    pub counts: Vec<Bytes>,
    /// Of photons, or of the clicks that were drawn, dark counts among them.
    pub count: u32,
}

impl From<Photons> for Light {
    fn from(photons: Photons) -> Self {
        Self { count: photons.count, photons, counts: Vec::new() }
    }
}

impl Nature {
    /// Begins at the first epoch that both outputs ask for, with what they say of themselves.
    pub fn begin(config: &SourceConfig, subseed: &Subseed, hellos: [&AttachOutput; 2]) -> Result<Self> {
        match &config.nature {
            Config::Pairs(nature) => Ok(Self::Pairs(Box::new(pairs::Emitter::new(
                &nature.emitter,
                [&nature.arms[0], &nature.arms[1]],
                [&nature.analysers[0], &nature.analysers[1]],
                [&nature.detectors[0], &nature.detectors[1]],
                config.epoch_ps,
                subseed,
            )))),
            Config::Pulses(nature) => {
                let [transmitter, receiver] = hellos.map(choice_key);
                let Some(transmitter) = transmitter? else {
                    bail!("the transmitter attached without a key of its choices")
                };
                let mut emitter = pulses::Emitter::new(
                    &nature.transmitter,
                    &nature.arm,
                    &nature.analyser,
                    nature.efficiency,
                    config.epoch_ps,
                    subseed,
                );
                emitter.start(hellos[0].first_epoch, transmitter, receiver?);
                Ok(Self::Pulses(Box::new(emitter)))
            }
            Config::Counts(counts) => {
                let transmitter = choice_bytes(hellos[0])?;
                Ok(Self::Counts(Box::new(Counted::begin(counts, config, subseed, transmitter)?)))
            }
        }
    }

    /// Gives the arms other losses, in the order of the configuration.
    pub fn set_losses_db(&mut self, losses_db: &[f64]) {
        match (self, losses_db) {
            (Self::Counts(counted), losses_db) => counted.set_losses_db(losses_db),
            (Self::Pairs(emitter), &[first_db, second_db]) => emitter.set_loss_db([first_db, second_db]),
            (Self::Pulses(emitter), &[loss_db]) => emitter.set_loss_db(loss_db),
            // `Losses` keeps as many as there are arms.
            _ => {}
        }
    }

    /// What faults and outages add to the way to either output. Pulses have one way, whichever end of it is named. Light
    /// that is `unseen` meets detectors that do not click, which is drawn where clicks are.
    pub fn suffer(&mut self, losses_db: [f64; 2], unseen: bool) {
        match self {
            Self::Pairs(emitter) => emitter.attenuate(losses_db),
            Self::Pulses(emitter) => emitter.attenuate(losses_db[0].max(losses_db[1])),
            Self::Counts(counted) => counted.suffer(losses_db, unseen),
        }
    }

    /// The light of an epoch, by output. `states` are what it meets there.
    pub fn emit(&mut self, epoch: u64, pump: f64, states: [&AnalyserState; 2]) -> Result<[Light; 2]> {
        Ok(match self {
            Self::Pairs(emitter) => emitter.emit(epoch, pump, states).map(Light::from),
            Self::Pulses(emitter) => [Light::default(), emitter.emit(epoch, states).into()],
            Self::Counts(counted) => counted.emit(epoch, pump, states)?,
        })
    }
}

impl Drop for Nature {
    fn drop(&mut self) {
        if let Self::Pulses(emitter) = self {
            emitter.stop();
        }
    }
}

/// The key of its choices that an output has told, if it chooses anything.
fn choice_key(hello: &AttachOutput) -> Result<Option<ChoiceKey>> {
    Ok(choice_bytes(hello)?.map(ChoiceKey::new))
}

fn choice_bytes(hello: &AttachOutput) -> Result<Option<&[u8; 32]>> {
    match &hello.choice_key[..] {
        [] => Ok(None),
        bytes => match bytes.try_into() {
            Ok(key) => Ok(Some(key)),
            Err(_) => bail!("output {} gave a key of {} bytes for its choices, not 32", hello.output, bytes.len()),
        },
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use photonics::config::{
        Arm, BasisChoice, Encoding, Intensity, Light, PhaseDrift, Polarisation, PreparedAnalyser, Transmitter,
    };
    use topology::plan::{Pulses, Speed};

    use super::*;

    fn config() -> SourceConfig {
        SourceConfig {
            name: "source-a-b".to_owned(),
            link: "a-b".to_owned(),
            site: "a".to_owned(),
            epoch_ps: 20_000_000_000,
            latency_epochs: 8,
            round_epochs: 50,
            speed: Speed::Max,
            epochs_limit: None,
            subseed: None,
            nature: Config::Pulses(Box::new(Pulses {
                transmitter: Transmitter {
                    repetition_rate_hz: 1e6,
                    encoding: Encoding::Polarisation,
                    light: Light::Coherent(vec![Intensity { mean_photons: 0.5, probability: 1.0 }]),
                    z_probability: 0.5,
                    intrinsic_error: [0.0; 2],
                    pulse_fwhm_ps: 0.0,
                    bin_separation_ps: 0.0,
                    phase: PhaseDrift::default(),
                    preamble_pulses: 0,
                    steps: vec![],
                },
                arm: Arm {
                    length_km: 0.0,
                    loss_db: 0.0,
                    delay_ps: 0.0,
                    delay_drift_amplitude_ps: 0.0,
                    delay_drift_period_s: 1.0,
                    dispersion_ps_per_nm: 0.0,
                    polarisation: Polarisation {
                        initial_rad: [0.0; 2],
                        drift_amplitude_rad: 0.0,
                        drift_period_s: 1.0,
                        dependent_loss: 0.0,
                        steps: vec![],
                    },
                },
                analyser: PreparedAnalyser {
                    encoding: Encoding::Polarisation,
                    basis_choice: BasisChoice::Active,
                    z_probability: 0.5,
                    error: [0.0; 2],
                    bin_separation_ps: 0.0,
                    phase: PhaseDrift::default(),
                },
                efficiency: 1.0,
            })),
            outages: vec![],
            pacing: None,
            faults_allowed: true,
            accepts: vec![],
        }
    }

    fn begin(keys: [&'static [u8]; 2]) -> Result<Nature> {
        let hello = |output: usize| AttachOutput {
            output: output as u32,
            session: 1,
            first_epoch: 3,
            choice_key: keys[output].into(),
            ..AttachOutput::default()
        };
        Nature::begin(&config(), &Subseed::new([9; 32]), [&hello(0), &hello(1)])
    }

    #[test]
    fn pulses_need_the_key_of_their_transmitter_and_keys_have_32_bytes() {
        begin([&[1; 32], &[2; 32]]).unwrap();
        begin([&[1; 32], &[]]).unwrap();
        for (keys, why) in [
            ([&[][..], &[2; 32]], "without a key of its choices"),
            ([&[1; 31], &[2; 32]], "output 0 gave a key of 31 bytes"),
            ([&[1; 32], &[2; 33]], "output 1 gave a key of 33 bytes"),
        ] {
            let error = begin(keys).err().unwrap().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn light_goes_to_the_receiver_alone_through_one_way_that_either_output_names() {
        let mut nature = begin([&[1; 32], &[2; 32]]).unwrap();
        let (state, mut epoch) = (AnalyserState::default(), 2);
        let mut emit = |nature: &mut Nature| {
            epoch += 1;
            let [transmitter, receiver] = nature.emit(epoch, 1.0, [&state, &state]).unwrap();
            assert_eq!(transmitter.photons, Photons::default());
            receiver.count
        };
        // 20,000 pulses of half a photon.
        let full = emit(&mut nature);
        assert!(full > 9000, "{full}");
        for cut in [[f64::INFINITY, 0.0], [0.0, f64::INFINITY]] {
            nature.suffer(cut, false);
            assert_eq!(emit(&mut nature), 0);
        }
        nature.suffer([3.0, 3.0], false);
        let half = emit(&mut nature);
        assert!((4500..5500).contains(&half), "{half}");
        nature.suffer([0.0; 2], false);
        nature.set_losses_db(&[10.0]);
        let tenth = emit(&mut nature);
        assert!((850..1150).contains(&tenth), "{tenth}");
    }
}
