//! What a link asks of the machine.

use super::bbm92::Prediction;

/// Estimates of one link, for planning.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Time tags per simulated second of each end and of both.
    pub tags_hz: [f64; 2],
    pub total_tags_hz: f64,
    /// Bytes per simulated second when every tag is recorded as one 64-bit word.
    pub record_bytes_hz: f64,
    /// Bytes that the module of each end holds at most.
    pub module_bytes: [f64; 2],
}

/// What the memory of a module depends on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Buffering {
    /// The end that announces; the other one recovers the clock, which takes the most memory.
    pub announcer: usize,
    pub frame_s: f64,
    /// Frames of own clicks that wait for the peer's answer.
    pub frames_in_flight: f64,
    /// Stretch of clicks that acquisition correlates, and the offset that it searches either way.
    pub acquisition_s: f64,
    pub search_s: f64,
    /// Bin of the coarse correlation.
    pub bin_s: f64,
    pub block_s: f64,
}

/// A process, its program and what its size does not change with the light.
const BASE_BYTES: f64 = 24e6;
/// A tag that waits.
const BYTES_PER_TAG: f64 = 8.0;
/// A tag in the correlator: as it waits and once more as a time.
const BYTES_PER_CORRELATED_TAG: f64 = 16.0;
/// A lag of the correlation: a complex single in the spectrum of the stream and in that of the sum.
const BYTES_PER_LAG: f64 = 16.0;
/// A sifted bit of a block in all its forms, and in the blocks that are worked on beside it: bit, label, parities, seed
/// and transform of the amplification. Most that was measured of modules as processes: 3.7 to 7.0 with blocks of 42 to
/// 85 Mbit (T12 and the Cambridge links at counts), 2.8 to 3.7 of T12 at tags.
pub const BYTES_PER_SIFTED_BIT: f64 = 7.0;

/// Tag load and memory of a link.
pub fn load(prediction: &Prediction, buffering: &Buffering) -> Load {
    let tags_hz = [prediction.end_rate_hz(0), prediction.end_rate_hz(1)];
    let total_tags_hz = prediction.tag_rate_hz;
    let sifted_bits = (prediction.z.sifted_hz + prediction.x.sifted_hz) * buffering.block_s;
    let shared = BASE_BYTES + sifted_bits * BYTES_PER_SIFTED_BIT;
    let lags = 2.0 * buffering.search_s / buffering.bin_s;
    // The stretch is searched in the other end's clicks as far as the offset may reach.
    let stretch_s = buffering.acquisition_s + 2.0 * buffering.search_s;
    let correlator = lags * BYTES_PER_LAG + total_tags_hz * stretch_s * BYTES_PER_CORRELATED_TAG;
    let module_bytes = [0, 1].map(|end| {
        let waiting = tags_hz[end] * buffering.frame_s * buffering.frames_in_flight * BYTES_PER_TAG;
        shared + waiting + if end == buffering.announcer { 0.0 } else { correlator }
    });
    Load { tags_hz, total_tags_hz, record_bytes_hz: 8.0 * total_tags_hz, module_bytes }
}

#[cfg(test)]
mod tests {
    use super::super::{Bbm92Inputs, DetectorModel, Matching, predict};
    use super::*;

    #[test]
    fn the_fifty_kilometre_link_has_the_load_of_the_laboratory() {
        let inputs = Bbm92Inputs {
            pair_rate_hz: 3.05e8,
            transmission: [0.021; 2],
            z_probability: [0.5; 2],
            crosstalk: [0.0; 2],
            analyser_delay_ps: [400.0; 2],
            visibility: 1.0,
            mean_cos_phase: 1.0,
            detectors: [DetectorModel::default(), DetectorModel::default()],
            window_ps: 120.0,
            peak_fwhm_ps: 98.0,
            matching: Matching::default(),
        };
        let buffering = Buffering {
            announcer: 1,
            frame_s: 0.02,
            frames_in_flight: 8.0,
            acquisition_s: 0.25,
            search_s: 0.01,
            bin_s: 10e-9,
            block_s: 10.0,
        };
        let load = load(&predict(&inputs), &buffering);
        assert!((load.total_tags_hz - 12.8e6).abs() < 0.1e6);
        assert!((load.record_bytes_hz - 103e6).abs() < 1e6);
        let [matcher, announcer] = load.module_bytes;
        assert!(matcher > announcer && announcer > 1e7 && matcher < 160e6, "{matcher} {announcer}");
    }
}
