//! Satellites: orbits that cannot be, elements that are old, stations that never see them.

use orbits::{ElementsError, Line, Orbit, TwoLineElements, Utc, highest, passes};

use super::{Finding, Report};
use crate::document::{self, Fidelity, FreeSpace, Link, Site, Spec};
use crate::plan::space::{PlannedOrbit, PlannedStation, SpaceEnds};
use crate::resolve::{LinkKind, Way, resolve};

const DAY_S: f64 = 86_400.0;
/// Positions are off by a few kilometres a day; after a month the times of passes are, by a minute.
const OLD_S: f64 = 30.0 * DAY_S;
/// After that they say nothing.
const TOO_OLD_S: f64 = 365.25 * DAY_S;
/// How long a station is looked from until it is said never to see a satellite.
const SEARCH_S: f64 = 30.0 * DAY_S;

pub(super) fn check(spec: &Spec, report: &mut Report<'_>) {
    let orbits: Vec<Option<Orbit>> =
        spec.sites.iter().enumerate().map(|(index, site)| satellite(spec, index, site, report)).collect();
    for (index, link) in spec.links.iter().enumerate() {
        self::link(spec, &orbits, index, link, report);
    }
}

/// The orbit of a site, if it has one that can be.
fn satellite(spec: &Spec, index: usize, site: &Site, report: &mut Report<'_>) -> Option<Orbit> {
    let orbit = site.orbit.as_ref()?;
    let path = format!("spec.sites[{index}].orbit");
    if site.location.is_some() {
        let message = format!("a location of \"{}\", which is a satellite", site.name);
        report
            .add(Finding::error(format!("spec.sites[{index}].location"), message, "an orbit or a location"), &[&path]);
    }
    let found = match (orbit, PlannedOrbit::of(orbit)) {
        (document::Orbit::TwoLine(_), PlannedOrbit::TwoLine { line1, line2 }) => {
            TwoLineElements::parse(&line1, &line2).map(Orbit::Elements).map_err(|error| elements(&error, &path))
        }
        (document::Orbit::Kepler(_), PlannedOrbit::Kepler(kepler)) => {
            kepler.shape().checked().map(Orbit::Kepler).map_err(|error| {
                let field = match error {
                    orbits::KeplerError::Open { .. } => "eccentricity",
                    orbits::KeplerError::Low { .. } | orbits::KeplerError::Slow { .. } => "altitude",
                };
                Finding::error(format!("{path}.{field}"), error.to_string(), error.expected())
            })
        }
        _ => return None,
    };
    match found {
        Ok(orbit) => {
            age(spec, &orbit, &path, report);
            Some(orbit)
        }
        Err(finding) => {
            report.add(finding, &[]);
            None
        }
    }
}

fn elements(error: &ElementsError, path: &str) -> Finding {
    let field = match error.line() {
        Some(Line::First) => ".line1",
        Some(Line::Second) => ".line2",
        None => "",
    };
    let hint = matches!(error, ElementsError::Length { .. })
        .then(|| "copy the line with its blanks: every column has its meaning".to_owned());
    Finding::error(format!("{path}{field}"), error.to_string(), error.expected()).hint(hint)
}

/// Elements of a catalogue hold for some days.
fn age(spec: &Spec, orbit: &Orbit, path: &str, report: &mut Report<'_>) {
    let (Some(start), Orbit::Elements(_)) = (&spec.run.start, orbit) else { return };
    let age_s = start.utc().since_s(orbit.epoch());
    let path = format!("{path}.line1");
    let (epoch, when) = (orbit.epoch(), if age_s > 0.0 { "before" } else { "after" });
    let hint = Some("take the elements of that time from a catalogue, or set `run.start` near their epoch".to_owned());
    if age_s.abs() > TOO_OLD_S {
        let years = age_s.abs() / TOO_OLD_S;
        let message = format!("elements of {epoch}, {years:.1} years {when} the run's start");
        report.add(
            Finding::error(path, message, "elements within a year of `run.start`").hint(hint),
            &["spec.run.start"],
        );
    } else if age_s.abs() > OLD_S {
        let days = age_s.abs() / DAY_S;
        let message = format!("elements of {epoch}, {days:.0} days {when} the run's start");
        let finding = Finding::warning(path, message, "elements within 30 days: times of passes are off by minutes");
        report.add(finding.hint(hint), &["spec.run.start"]);
    }
}

fn link(spec: &Spec, orbits: &[Option<Orbit>], index: usize, link: &Link, report: &mut Report<'_>) {
    let path = format!("spec.links[{index}]");
    let site = |name: &document::Name| spec.sites.iter().position(|site| site.name == *name);
    let Ok(LinkKind::Prepared(kind)) = resolve(link) else { return by_fibre(spec, link, &path, report) };
    let Way::FreeSpace(way) = kind.way else { return by_fibre(spec, link, &path, report) };
    let arm = format!("{path}.arms[0]");
    if spec.fidelity(link) == Fidelity::Tags {
        let own = if link.fidelity.is_some() { format!("{path}.fidelity") } else { format!("{arm}.freeSpace") };
        let message = format!("link {}: clicks of light through free space are not simulated", link.name);
        report.add(Finding::error(own, message, "fidelity: counts, of the link or of the run"), &[]);
    }
    if spec.run.start.is_none() {
        let message = "no time at which the run begins, so that nobody knows where satellites are";
        report.add(Finding::error("spec.run", message, "start: a time in UTC, such as 2016-12-19T16:48:00Z"), &[]);
    }
    let sites = kind.sites();
    let known = [link.source_site(), &kind.arm.site].map(site);
    let [Some(transmitter), Some(receiver)] = known else { return };
    let Some(ends) = SpaceEnds::of(spec, sites) else {
        let satellites = [transmitter, receiver].into_iter().filter(|index| spec.sites[*index].is_satellite()).count();
        let message = match satellites {
            0 => format!("neither \"{}\" nor \"{}\" is a satellite", sites[0], sites[1]),
            1 => format!("the ground station of \"{}\" has no location", link.name),
            _ => format!("both \"{}\" and \"{}\" are satellites", sites[0], sites[1]),
        };
        let expected = "one site with an orbit and one with a location";
        report.add(Finding::error(format!("{arm}.freeSpace"), message, expected), &["spec.sites"]);
        return;
    };
    direction(way, ends.is_uplink, &arm, report);
    let satellite = if ends.is_uplink { receiver } else { transmitter };
    if let (Some(Some(orbit)), Some(start)) = (orbits.get(satellite), &spec.run.start) {
        sight(spec, orbit, &ends, (way, start.utc()), &arm, report);
    }
}

/// A fibre does not reach a satellite.
fn by_fibre(spec: &Spec, link: &Link, path: &str, report: &mut Report<'_>) {
    for (index, arm) in link.arms.iter().enumerate() {
        let ends = [link.source_site(), &arm.site];
        let satellite = spec.sites.iter().find(|site| site.is_satellite() && ends.contains(&&site.name));
        if let (Some(satellite), Some(_)) = (satellite, &arm.fibre) {
            let message = format!("a fibre to \"{}\", which is a satellite", satellite.name);
            report.add(Finding::error(format!("{path}.arms[{index}].fibre"), message, "freeSpace"), &["spec.sites"]);
        }
    }
}

fn direction(way: &FreeSpace, is_uplink: bool, arm: &str, report: &mut Report<'_>) {
    let path = format!("{arm}.freeSpace");
    match (is_uplink, &way.seeing, &way.sky) {
        (true, None, _) => {
            let hint = "turbulence above the transmitter widens an uplink before it spreads; 1 arc second is 4.8 urad";
            let finding = Finding::error(path, "an uplink without `seeing`", "a star's width, such as seeing: 5 urad");
            report.add(finding.hint(Some(hint.into())), &[]);
        }
        (false, Some(seeing), _) => {
            let message = format!("a seeing of {seeing} on a downlink");
            let hint = "its turbulence comes where the beam has already spread; the telescope's part is `opticsLoss`";
            let finding = Finding::error(format!("{path}.seeing"), message, "no seeing");
            report.add(finding.hint(Some(hint.into())), &[]);
        }
        (true, _, Some(_)) => {
            let message = "light of the sky on an uplink, whose receiver looks at the Earth";
            report.add(Finding::error(format!("{path}.sky"), message, "`strayLight` alone"), &[]);
        }
        _ => {}
    }
}

/// Whether the station ever sees the satellite, and in this run.
fn sight(
    spec: &Spec,
    orbit: &Orbit,
    ends: &SpaceEnds<'_>,
    (way, start): (&FreeSpace, Utc),
    arm: &str,
    report: &mut Report<'_>,
) {
    let mask_deg = way.elevation_mask.value().to_degrees();
    let station = PlannedStation::of(ends.station.0, ends.station.1).station();
    let path = format!("{arm}.freeSpace.elevationMask");
    let depends_on = ["spec.run.start", "spec.sites"];
    let (satellite, site) = (&ends.satellite.0.name, &ends.station.0.name);
    let run_s = spec.run.duration.map_or(0.0, |duration| duration.value() * 1e-12);
    let until = start.plus_s(run_s.max(SEARCH_S));
    let best = match highest(orbit, &station, start, until) {
        Ok(best) => best,
        Err(error) => {
            let message = format!("the orbit of \"{satellite}\" ends: {error}");
            report.add(Finding::error(path, message, "elements that hold for the run and 30 days"), &depends_on);
            return;
        }
    };
    let Some((at, look)) = best else { return };
    if look.elevation_deg <= mask_deg {
        let message = format!("\"{site}\" never sees \"{satellite}\" above {mask_deg:.1} deg");
        let expected = format!("below the highest elevation, {:.1} deg at {at}", look.elevation_deg);
        let hint = (look.elevation_deg < 0.0).then(|| {
            "the orbit does not come above its horizon: its inclination is too small for that latitude".into()
        });
        report.add(Finding::error(path, message, expected).hint(hint), &depends_on);
        return;
    }
    if run_s > 0.0
        && let Ok(found) = passes(orbit, &station, mask_deg, start, start.plus_s(run_s))
        && found.is_empty()
    {
        let later = passes(orbit, &station, mask_deg, start, until).unwrap_or_default();
        let next = later.first().map_or(String::new(), |pass| format!("; the next pass begins at {}", pass.rise.0));
        let message = format!("\"{site}\" does not see \"{satellite}\" above {mask_deg:.1} deg in this run{next}");
        report.add(Finding::warning("spec.run.for", message, "a run with a pass, or no key is made"), &depends_on);
    }
}

/// Values of the way that cannot be.
pub(super) fn way(way: &FreeSpace, path: &str, report: &mut Report<'_>) {
    let mask_deg = way.elevation_mask.value().to_degrees();
    if !(0.0..90.0).contains(&mask_deg) {
        let message = format!("a mask of {}", way.elevation_mask);
        report.add(Finding::error(format!("{path}.elevationMask"), message, "from 0 deg to below 90 deg"), &[]);
    }
    let small = |value: f64| (1e-7..=1e-2).contains(&value);
    if !small(way.divergence.value()) {
        let message = format!("a beam of {}", way.divergence);
        report.add(Finding::error(format!("{path}.divergence"), message, "between 0.1 urad and 10 mrad"), &[]);
    }
    for (field, angle) in [("pointing", Some(way.pointing)), ("seeing", way.seeing)] {
        let Some(angle) = angle.filter(|angle| !(0.0..=1e-2).contains(&angle.value())) else { continue };
        let message = format!("an angle of {angle}");
        report.add(Finding::error(format!("{path}.{field}"), message, "between 0 and 10 mrad"), &[]);
    }
    if way.zenith_transmittance.value() <= 0.0 {
        let finding =
            Finding::error(format!("{path}.zenithTransmittance"), "air that lets nothing through", "above 0 %");
        report.add(finding, &[]);
    }
    let (aperture_m, shaded_m) = (way.aperture.value() * 1e3, way.obscuration.value() * 1e3);
    if !(0.01..=100.0).contains(&aperture_m) {
        let message = format!("a telescope of {}", way.aperture);
        report.add(Finding::error(format!("{path}.aperture"), message, "between 1 cm and 100 m (its diameter)"), &[]);
    } else if shaded_m >= aperture_m {
        let message = format!("{} in the middle of a telescope of {}", way.obscuration, way.aperture);
        let finding = Finding::error(format!("{path}.obscuration"), message, "less than the aperture");
        report.add(finding, &[&format!("{path}.aperture")]);
    }
    if let Some(sky) = &way.sky {
        let angle = sky.field_of_view;
        if !(1e-7..=0.1).contains(&angle.value()) {
            let message = format!("a field of view of {angle}");
            report
                .add(Finding::error(format!("{path}.sky.fieldOfView"), message, "between 0.1 urad and 100 mrad"), &[]);
        }
    }
}
