//! The histogram of time differences around the coincidence peak, and what it says about the clocks.

use super::PS_PER_UNIT;
use super::clock::PARTS;

/// Full width at half maximum of a Gaussian over its standard deviation.
const FWHM_PER_SIGMA: f64 = 2.354_820_045;
const ROOT_TWO_PI: f64 = 2.506_628_274_631;

/// Geometry of the peak, in units of 4 ps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// Distance of the side peaks.
    pub delay: i64,
    /// Differences up to this are kept: both side peaks and some floor beyond.
    pub range: i64,
    /// Full coincidence window.
    pub window: i64,
}

impl Shape {
    pub fn new(delay: i64, window: i64) -> Self {
        Self { delay, range: delay * 5 / 2, window }
    }
}

/// Counts of differences between own and predicted time in bins of one unit (4 ps).
#[derive(Clone, Debug)]
pub(super) struct Histogram {
    shape: Shape,
    bins: Vec<u32>,
    /// Sum of what rounding to bins took away, in 1/256 units.
    rounding: i64,
    pairs: u64,
}

/// What a histogram shows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fit {
    /// Centre of the central peak relative to the prediction.
    pub centre_ps: f64,
    /// Variance of that centre.
    pub variance_ps2: f64,
    pub fwhm_ps: f64,
    /// Excess of the central peak over the floor, in standard deviations of the floor.
    pub significance: f64,
    /// Part of what falls into the coincidence window that is accidental.
    pub accidental_fraction: f64,
}

impl Histogram {
    pub fn new(shape: Shape) -> Self {
        Self { shape, bins: vec![0; 2 * shape.range as usize + 1], rounding: 0, pairs: 0 }
    }

    pub fn clear(&mut self) {
        self.bins.fill(0);
        self.rounding = 0;
        self.pairs = 0;
    }

    /// Adds a difference in 1/256 units.
    #[inline]
    pub fn add(&mut self, difference: i64) {
        let bin = (difference + PARTS / 2) >> PARTS.trailing_zeros();
        if let Some(count) = self.bins.get_mut((bin + self.shape.range) as usize) {
            *count += 1;
            self.rounding += difference - bin * PARTS;
            self.pairs += 1;
        }
    }

    /// Counts of the bins `first..=last` (in units from the prediction), clipped to the histogram.
    fn sum(prefix: &[u64], range: i64, first: i64, last: i64) -> u64 {
        let low = (first + range).clamp(0, 2 * range + 1) as usize;
        let high = (last + range + 1).clamp(0, 2 * range + 1) as usize;
        prefix[high.max(low)] - prefix[low]
    }

    fn prefix(&self) -> Vec<u64> {
        let mut sum = 0;
        std::iter::once(0)
            .chain(self.bins.iter().map(|count| {
                sum += u64::from(*count);
                sum
            }))
            .collect()
    }

    /// Finds the central peak, told from the side peaks by having one of half its height on either side.
    pub fn fit(&self) -> Fit {
        let Shape { delay, range, window } = self.shape;
        let prefix = self.prefix();
        let beyond = delay * 7 / 4;
        let floor_counts = Self::sum(&prefix, range, -range, -beyond) + Self::sum(&prefix, range, beyond, range);
        let floor = floor_counts as f64 / (2 * (range - beyond + 1)) as f64;
        let peak = self.strongest(&prefix);
        let (centre, net) = self.centroid(peak as f64, floor);
        let sigma = self.sigma(centre, floor);
        let rounding = if self.pairs == 0 { 0.0 } else { self.rounding as f64 / (self.pairs as i64 * PARTS) as f64 };
        let (centre, variance) = self.likeliest(centre, sigma, floor, net);
        let (quarter, nearest) = (delay / 4, libm::floor(centre + 0.5) as i64);
        let expected = floor * (2 * quarter + 1) as f64;
        let found = Self::sum(&prefix, range, peak - quarter, peak + quarter) as f64;
        let inside = Self::sum(&prefix, range, nearest - window / 2, nearest + window / 2) as f64;
        Fit {
            centre_ps: (centre + rounding) * PS_PER_UNIT,
            variance_ps2: variance * PS_PER_UNIT * PS_PER_UNIT,
            fwhm_ps: sigma * FWHM_PER_SIGMA * PS_PER_UNIT,
            significance: (found - expected) / expected.max(1.0).sqrt(),
            accidental_fraction: if inside > 0.0 { (floor * (window + 1) as f64 / inside).min(1.0) } else { 1.0 },
        }
    }

    /// Position whose surroundings look most like a central peak between two side peaks.
    fn strongest(&self, prefix: &[u64]) -> i64 {
        let Shape { delay, range, .. } = self.shape;
        let half = (delay / 8).max(1);
        let smooth = |centre: i64| Self::sum(prefix, range, centre - half, centre + half);
        let reach = range - delay - half;
        let mut best = (0, 0);
        for centre in -reach..=reach {
            let score = 2 * smooth(centre) + smooth(centre - delay) + smooth(centre + delay);
            // Of equals the one closest to the prediction.
            if score > best.0 || (score == best.0 && centre.abs() < i64::abs(best.1)) {
                best = (score, centre);
            }
        }
        best.1
    }

    /// Iterated centroid within half a delay, floor taken off: symmetric side peaks do not pull it.
    fn centroid(&self, start: f64, floor: f64) -> (f64, f64) {
        let half = self.shape.delay as f64 / 2.0;
        let (mut centre, mut net) = (start, 0.0);
        for _ in 0..16 {
            let (mut moment, mut sum) = (0.0, 0.0);
            self.each_near(centre, half, |distance, count, weight| {
                moment += weight * count * distance;
                sum += weight * count;
            });
            net = sum - floor * 2.0 * half;
            if net < 1.0 {
                return (start, 0.0);
            }
            let step = moment / net;
            // Never further from the peak than its own window.
            if (centre + step - start).abs() > half {
                return (start, net);
            }
            centre += step;
        }
        (centre, net)
    }

    /// Maximum likelihood of the centre by Fisher scoring, for three Gaussian peaks, the outer ones of half the
    /// height, on the floor: the side peaks tell as much about the clocks as the central one. Gives the variance
    /// that goes with it (Cramer, Mathematical Methods of Statistics, 32.3).
    fn likeliest(&self, start: f64, sigma: f64, floor: f64, net: f64) -> (f64, f64) {
        let (delay, range) = (self.shape.delay as f64, self.shape.range);
        let height = net.max(1.0) / (sigma * ROOT_TWO_PI);
        let base = floor.max(1e-3 * height);
        let (mut centre, mut information) = (start, 0.0);
        for _ in 0..6 {
            let mut score = 0.0;
            information = 0.0;
            for (count, bin) in self.bins.iter().zip(-range..=range) {
                let x = bin as f64 - centre;
                let (mut value, mut slope) = (base, 0.0);
                for (distance, part) in [(x, height), (x - delay, 0.5 * height), (x + delay, 0.5 * height)] {
                    let reduced = distance / sigma;
                    let gaussian = part * libm::exp(-0.5 * reduced * reduced);
                    value += gaussian;
                    slope += gaussian * reduced / sigma;
                }
                score += f64::from(*count) * slope / value;
                information += slope * slope / value;
            }
            let step = (score / information).clamp(-sigma, sigma);
            // Further than the central peak is wide: what was found is no such peak.
            if (centre + step - start).abs() > delay / 4.0 {
                break;
            }
            centre += step;
        }
        (centre, 1.0 / information)
    }

    /// Standard deviation of the peak from moments under a Gaussian weight that is adapted until both are equally wide.
    fn sigma(&self, centre: f64, floor: f64) -> f64 {
        let half = self.shape.delay as f64 / 2.0;
        let mut sigma = half / 2.0;
        for _ in 0..8 {
            let (mut moment, mut sum) = (0.0, 0.0);
            self.each_near(centre, half, |distance, count, weight| {
                let square = distance * distance;
                let gaussian = weight * (count - floor) * libm::exp(-square / (2.0 * sigma * sigma));
                moment += gaussian * square;
                sum += gaussian;
            });
            let weighted = if sum > 0.0 { moment / sum } else { 0.0 };
            if weighted <= 0.0 || weighted >= 0.99 * sigma * sigma {
                return half;
            }
            let inverse = 1.0 / weighted - 1.0 / (sigma * sigma);
            sigma = (1.0 / inverse).sqrt().clamp(0.5, half);
        }
        sigma
    }

    /// Visits the bins within `half` of `centre`: distance, counts, and the part of the bin that is inside.
    fn each_near(&self, centre: f64, half: f64, mut visit: impl FnMut(f64, f64, f64)) {
        let range = self.shape.range as f64;
        let first = libm::floor(centre - half).max(-range) as i64;
        let last = libm::ceil(centre + half).min(range) as i64;
        for bin in first..=last {
            let distance = bin as f64 - centre;
            let inside = (half + 0.5 - distance.abs()).clamp(0.0, 1.0);
            let count = f64::from(self.bins[(bin + self.shape.range) as usize]);
            visit(distance, count, inside);
        }
    }
}
