//! A link between a satellite and the ground: where the satellite is, what of the light arrives, and what a pass yields.

use orbits::sky::Sky;
use orbits::{Kepler, Orbit, Pass, PositionError, Station, TwoLineElements, Utc};
use photonics::config::{Outage, PreparedDetectors};
use photonics::expect::math;
use photonics::free_space::{Background, Beam, sky_radiance};
use serde::{Deserialize, Serialize};

use super::config::PlannedOutage;
use crate::document::{self, FreeSpace, Location, Site, Spec};
use crate::resolve::{PreparedLink, Way};

/// How far passes are looked for where a run has no end.
pub const HORIZON_S: f64 = 7.0 * 86_400.0;

/// Loss of a way that is dark, where a formula needs a number.
const DARK_DB: f64 = 300.0;

/// All that says what arrives at a moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpaceLink {
    /// Universal time at which simulated time begins, as seconds since 1970.
    pub start_unix_s: f64,
    pub epoch_ps: u64,
    pub orbit: PlannedOrbit,
    pub satellite: String,
    pub station: PlannedStation,
    pub mask_deg: f64,
    pub beam: Beam,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub background: Option<Background>,
    /// Clicks per second of each detector by light that is not of the sky.
    pub stray_hz: f64,
    /// Part of the light of the sky that clicks at each detector: optics, splitters and detectors together.
    pub clicking: f64,
    /// What formulae take where they know nothing of passes: the mean of the first one of the run.
    pub mean: Seen,
    /// At the highest culmination of the run, the least of all that an epoch meets.
    pub best: Seen,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub enum PlannedOrbit {
    TwoLine { line1: String, line2: String },
    Kepler(PlannedKepler),
}

/// Mean elements at an epoch, seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedKepler {
    pub epoch_unix_s: f64,
    pub altitude_km: f64,
    pub eccentricity: f64,
    pub inclination_rad: f64,
    pub node_rad: f64,
    pub perigee_rad: f64,
    pub mean_anomaly_rad: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedStation {
    pub site: String,
    pub lat_deg: f64,
    pub lon_deg: f64,
    pub height_km: f64,
}

/// What the way takes, and the clicks per second of other light at each detector.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seen {
    pub loss_db: f64,
    pub background_hz: f64,
}

impl Seen {
    const DARK: Seen = Seen { loss_db: DARK_DB, background_hz: 0.0 };

    /// Detectors that click by other light, too.
    pub fn lit(self, detectors: &PreparedDetectors, pulse_rate_hz: f64) -> PreparedDetectors {
        let mut detectors = detectors.clone();
        match &mut detectors {
            PreparedDetectors::FreeRunning(free) => free.dark_rate_hz += self.background_hz,
            PreparedDetectors::GatedAvalanche(gated) => {
                let gate_s = (gated.gate_width_ps * 1e-12).min(1.0 / pulse_rate_hz);
                gated.dark_probability += -libm::expm1(-self.background_hz * gate_s);
            }
        }
        detectors
    }
}

impl PlannedOrbit {
    pub(crate) fn of(orbit: &document::Orbit) -> Self {
        match orbit {
            document::Orbit::TwoLine(lines) => {
                Self::TwoLine { line1: lines.line1.trim_end().to_owned(), line2: lines.line2.trim_end().to_owned() }
            }
            document::Orbit::Kepler(kepler) => Self::Kepler(PlannedKepler {
                epoch_unix_s: kepler.epoch.utc().unix_s(),
                altitude_km: kepler.altitude.value(),
                eccentricity: kepler.eccentricity,
                inclination_rad: kepler.inclination.value(),
                node_rad: kepler.ascending_node.value(),
                perigee_rad: kepler.perigee.value(),
                mean_anomaly_rad: kepler.mean_anomaly.value(),
            }),
        }
    }

    /// Nothing of what is no orbit, which `crate::parse` refuses.
    pub(crate) fn orbit(&self) -> Option<Orbit> {
        match self {
            Self::TwoLine { line1, line2 } => TwoLineElements::parse(line1, line2).ok().map(Orbit::Elements),
            Self::Kepler(kepler) => kepler.shape().checked().ok().map(Orbit::Kepler),
        }
    }
}

impl PlannedKepler {
    pub(crate) fn shape(&self) -> Kepler {
        Kepler {
            epoch: Utc::from_unix_s(self.epoch_unix_s),
            altitude_km: self.altitude_km,
            eccentricity: self.eccentricity,
            inclination_rad: self.inclination_rad,
            node_rad: self.node_rad,
            perigee_rad: self.perigee_rad,
            mean_anomaly_rad: self.mean_anomaly_rad,
        }
    }
}

impl PlannedStation {
    pub(crate) fn of(site: &Site, location: &Location) -> Self {
        let height_km = location.height.map_or(0.0, |height| height.value());
        Self { site: site.name.to_string(), lat_deg: location.lat, lon_deg: location.lon, height_km }
    }

    pub(crate) fn station(&self) -> Station {
        Station::new(self.lat_deg, self.lon_deg, self.height_km)
    }
}

/// The two ends of a link through free space: which is the satellite, which the ground.
pub(crate) struct SpaceEnds<'a> {
    pub satellite: (&'a Site, &'a document::Orbit),
    pub station: (&'a Site, &'a Location),
    pub is_uplink: bool,
}

impl<'a> SpaceEnds<'a> {
    /// `sites` are those of the link, the transmitter's first.
    pub(crate) fn of(spec: &'a Spec, sites: [&str; 2]) -> Option<Self> {
        let named = |name: &str| spec.sites.iter().find(|site| site.name.as_str() == name);
        let [transmitter, receiver] = [named(sites[0])?, named(sites[1])?];
        let (satellite, station) =
            if transmitter.is_satellite() { (transmitter, receiver) } else { (receiver, transmitter) };
        Some(Self {
            satellite: (satellite, satellite.orbit.as_ref()?),
            station: (station, station.location.as_ref().filter(|_| !station.is_satellite())?),
            is_uplink: receiver.is_satellite(),
        })
    }
}

impl SpaceLink {
    /// Nothing of a link through fibre, or of one that `crate::parse` refuses.
    pub(crate) fn of(spec: &Spec, kind: &PreparedLink<'_>, epoch_ps: u64, limit_ps: Option<u64>) -> Option<Self> {
        let Way::FreeSpace(way) = kind.way else { return None };
        let ends = SpaceEnds::of(spec, kind.sites())?;
        let detectors = kind.detectors();
        let mut link = Self {
            start_unix_s: spec.run.start.as_ref()?.utc().unix_s(),
            epoch_ps,
            orbit: PlannedOrbit::of(ends.satellite.1),
            satellite: ends.satellite.0.name.to_string(),
            station: PlannedStation::of(ends.station.0, ends.station.1),
            mask_deg: way.elevation_mask.value().to_degrees(),
            beam: beam(way),
            background: way.sky.as_ref().map(|sky| Background {
                field_of_view_rad: sky.field_of_view.value(),
                filter_nm: sky.filter.value(),
                wavelength_nm: kind.transmitter.wavelength().value(),
            }),
            stray_hz: way.stray_light.value() / detectors,
            clicking: math::transmission(way.optics_loss.value()) * kind.detector.efficiency() / detectors,
            mean: Seen::DARK,
            best: Seen::DARK,
        };
        let passes = link.passes(limit_ps).unwrap_or_default();
        if let Some(first) = passes.first() {
            link.mean = link.mean_of(first, limit_ps);
        }
        let highest = passes.iter().map(|pass| pass.culmination.0);
        let seen = highest.map(|at| link.seen_at(at)).filter(|seen| seen.loss_db.is_finite());
        if let Some(best) = seen.min_by(|a, b| a.loss_db.total_cmp(&b.loss_db)) {
            link.best = best;
        }
        Some(link)
    }

    pub fn start(&self) -> Utc {
        Utc::from_unix_s(self.start_unix_s)
    }

    /// Simulated time of a moment.
    pub fn simulated_s(&self, at: Utc) -> f64 {
        at.since_s(self.start())
    }

    fn until(&self, limit_ps: Option<u64>) -> Utc {
        self.start().plus_s(limit_ps.map_or(HORIZON_S, |limit| limit as f64 * 1e-12))
    }

    /// Passes of a run, or of a week where it has no end. They are whole, also where the run begins or ends within one.
    pub fn passes(&self, limit_ps: Option<u64>) -> Result<Vec<Pass>, PositionError> {
        let Some(orbit) = self.orbit.orbit() else { return Ok(Vec::new()) };
        orbits::passes(&orbit, &self.station.station(), self.mask_deg, self.start(), self.until(limit_ps))
    }

    /// In an epoch that begins at a simulated time: what holds in the middle of it. Dark epochs have an infinite loss.
    pub fn seen(&self, t_s: f64) -> Seen {
        self.seen_at(self.start().plus_s(t_s + 0.5e-12 * self.epoch_ps as f64))
    }

    fn seen_at(&self, at: Utc) -> Seen {
        let dark = Seen { loss_db: f64::INFINITY, background_hz: 0.0 };
        let Some(position) = self.orbit.orbit().and_then(|orbit| orbit.position(at).ok()) else { return dark };
        let station = self.station.station();
        let look = station.look(position);
        if look.elevation_deg < self.mask_deg {
            return dark;
        }
        let loss_db = math::loss_db(self.beam.transmission(look.range_km, look.elevation_deg));
        // The last digits of a sine are the machine's, and shall decide nothing.
        let rounded = |value: f64| libm::round(value * 1e6) * 1e-6;
        Seen { loss_db: rounded(loss_db), background_hz: rounded(self.background_hz(&station, at)) }
    }

    /// Of each detector.
    fn background_hz(&self, station: &Station, at: Utc) -> f64 {
        let of_sky = self.background.map_or(0.0, |background| {
            let sky = Sky::at(station, at);
            let radiance = sky_radiance(sky.sun_elevation_deg, sky.moon_elevation_deg, sky.moon_lit);
            background.photons_hz(self.beam.aperture_m, radiance) * self.clicking
        });
        of_sky + self.stray_hz
    }

    /// The part of a pass that a run has, as simulated time.
    pub fn lit_s(&self, pass: &Pass, limit_ps: Option<u64>) -> [f64; 2] {
        let end_s = limit_ps.map_or(f64::INFINITY, |limit| limit as f64 * 1e-12);
        [pass.rise.0, pass.set.0].map(|at| self.simulated_s(at).clamp(0.0, end_s))
    }

    /// Mean over a pass: counts follow the mean of what arrives, as a pulse has far fewer photons than one there.
    pub fn mean_of(&self, pass: &Pass, limit_ps: Option<u64>) -> Seen {
        let [from_s, until_s] = self.lit_s(pass, limit_ps);
        const STEP_S: f64 = 1.0;
        let steps = libm::ceil((until_s - from_s) / STEP_S).max(1.0);
        let step_s = (until_s - from_s) / steps;
        let moment = |step: usize| self.start().plus_s(from_s + (step as f64 + 0.5) * step_s);
        let seen: Vec<Seen> = (0..steps as usize).map(|step| self.seen_at(moment(step))).collect();
        let mean = |of: &dyn Fn(&Seen) -> f64| seen.iter().map(of).sum::<f64>() / seen.len() as f64;
        let transmission = mean(&|seen| math::transmission(seen.loss_db));
        let loss_db = if transmission > 0.0 { math::loss_db(transmission) } else { DARK_DB };
        Seen { loss_db, background_hz: mean(&|seen| seen.background_hz) }
    }

    /// When a run with an end has no light, in whole epochs, and why. An epoch has light if it has some in its middle.
    pub(crate) fn outages(&self, limit_ps: Option<u64>) -> Vec<PlannedOutage> {
        let Some(limit_ps) = limit_ps else { return Vec::new() };
        let (epoch_s, end) = (self.epoch_ps as f64 * 1e-12, limit_ps.div_ceil(self.epoch_ps));
        let middle = |at: Utc| libm::ceil((self.simulated_s(at) / epoch_s - 0.5).max(0.0)) as u64;
        let cause = format!("{} is below {:.1} deg at {}", self.satellite, self.mask_deg, self.station.site);
        let (mut outages, mut dark_from) = (Vec::new(), 0);
        let mut dark = |first_epoch: u64, until: u64| {
            if until > first_epoch {
                let epochs = Outage { first_epoch, epochs: until - first_epoch, period_epochs: 0 };
                outages.push(PlannedOutage { output: None, cause: cause.clone(), epochs });
            }
        };
        for pass in self.passes(Some(limit_ps)).unwrap_or_default() {
            dark(dark_from, middle(pass.rise.0).min(end));
            dark_from = middle(pass.set.0).min(end);
        }
        dark(dark_from, end);
        outages
    }

    /// What those who start a run without any light are told.
    pub(crate) fn never(&self, limit_ps: Option<u64>) -> Option<String> {
        let passes = self.passes(limit_ps).ok()?;
        if !passes.is_empty() {
            return None;
        }
        let Self { satellite, station: PlannedStation { site, .. }, mask_deg, .. } = self;
        let later_ps = limit_ps.unwrap_or(0).saturating_add((30.0 * 86_400.0 * 1e12) as u64);
        let next = self.passes(Some(later_ps)).ok()?.into_iter().next();
        Some(match next {
            Some(pass) => {
                let (at, after_s) = (pass.rise.0, self.simulated_s(pass.rise.0));
                format!(
                    "{site} does not see {satellite} above {mask_deg:.1} deg in this run, which makes no key: the next pass \
                     begins at {at}, {after_s:.0} s after the run's start"
                )
            }
            None => format!("{site} does not see {satellite} above {mask_deg:.1} deg in this run, which makes no key"),
        })
    }
}

fn beam(way: &FreeSpace) -> Beam {
    const METRES: f64 = 1e3;
    Beam {
        divergence_rad: way.divergence.value(),
        pointing_rad: way.pointing.value(),
        seeing_rad: way.seeing.map_or(0.0, |seeing| seeing.value()),
        zenith_transmittance: way.zenith_transmittance.value(),
        aperture_m: way.aperture.value() * METRES,
        obscuration_m: way.obscuration.value() * METRES,
    }
}
