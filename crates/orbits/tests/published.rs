//! Check values that were published, and the pass of Micius in the night of its first keys.

use orbits::sky::Sky;
use orbits::{ElementsError, Kepler, Line, Orbit, Sample, Station, Track, TwoLineElements, Utc, highest, passes};

/// Catalogue data of Micius, 2016 December 18.
const MICIUS: [&str; 2] = [
    "1 41731U 16051A   16353.90152003  .00000364  00000-0  17957-4 0  9993",
    "2 41731  97.3699 267.4500 0013200 178.5836 246.0824 15.23915303 19063",
];

fn micius() -> Orbit {
    Orbit::Elements(TwoLineElements::parse(MICIUS[0], MICIUS[1]).unwrap())
}

fn xinglong() -> Station {
    Station::new(40.3958, 117.5775, 0.9)
}

fn utc(text: &str) -> Utc {
    text.parse().unwrap()
}

#[test]
fn the_pass_of_the_first_keys_is_the_published_one() {
    // Liao et al., Nature 549, 43 (2017), arXiv:1707.00542: closest at 645 km, "about 00:50" in the night of 19 December
    // 2016 (20 December in Beijing's time, 8 h ahead of UTC).
    let found = passes(&micius(), &xinglong(), 10.0, utc("2016-12-19T16:30:00Z"), utc("2016-12-19T17:10:00Z")).unwrap();
    let [pass] = found.as_slice() else { panic!("{found:?}") };
    let near = |moment: Utc, text: &str| assert!(moment.since_s(utc(text)).abs() < 1.0, "{moment} and {text}");
    near(pass.rise.0, "2016-12-19T16:48:44Z");
    near(pass.culmination.0, "2016-12-19T16:52:14Z");
    near(pass.set.0, "2016-12-19T16:55:40Z");
    let look = pass.culmination.1;
    assert!((look.range_km - 645.0).abs() < 1.0, "{look:?}");
    assert!((look.range_km - 645.46).abs() < 0.1 && (look.elevation_deg - 47.82).abs() < 0.02, "{look:?}");
    assert!(pass.culmination.0.since_s(utc("2016-12-19T16:50:00Z")).abs() < 300.0);
    for edge in [pass.rise, pass.set] {
        assert!((edge.1.elevation_deg - 10.0).abs() < 1e-4, "{edge:?}");
    }
}

#[test]
fn the_next_revolution_is_seen_by_nanshan() {
    // Coordinates of the station: Yin et al., Nature 582, 501 (2020).
    let nanshan = Station::new(43.0 + 28.0 / 60.0 + 31.66 / 3600.0, 87.0 + 10.0 / 60.0 + 36.07 / 3600.0, 2.028);
    let found = passes(&micius(), &nanshan, 10.0, utc("2016-12-19T17:30:00Z"), utc("2016-12-19T19:00:00Z")).unwrap();
    let [pass] = found.as_slice() else { panic!("{found:?}") };
    // Times and elevation by an independent implementation of SGP4.
    assert!(pass.rise.0.since_s(utc("2016-12-19T18:22:43Z")).abs() < 1.0, "{}", pass.rise.0);
    assert!((pass.culmination.1.elevation_deg - 63.9).abs() < 0.1, "{pass:?}");
    assert!((pass.duration_s() - 428.0).abs() < 2.0, "{}", pass.duration_s());
}

#[test]
fn ranges_of_the_published_track_are_those_of_the_elements() {
    // Ranges that Liao et al. measured, every 15 s from 16:49:56 UTC on.
    let ranges_km = [
        1196.3, 1111.8, 1023.4, 940.4, 864.1, 791.5, 733.5, 685.5, 656.3, 645.0, 650.9, 675.3, 714.8, 768.6, 836.5,
        911.2, 992.4, 1078.9, 1170.7,
    ];
    let (orbit, station, start) = (micius(), xinglong(), utc("2016-12-19T16:49:56Z"));
    let squares: f64 = ranges_km
        .iter()
        .enumerate()
        .map(|(index, range_km)| {
            let at = start.plus_s(15.0 * index as f64);
            let off_km = station.look(orbit.position(at).unwrap()).range_km - range_km;
            off_km * off_km
        })
        .sum();
    let rms_km = (squares / ranges_km.len() as f64).sqrt();
    assert!(rms_km < 6.0, "{rms_km} km");
}

#[test]
fn an_orbit_that_is_a_circle_has_the_slant_ranges_of_the_sphere() {
    // 500 km above a sphere of 6371 km: 10, 20, 30 and 60 degrees. Here the ellipsoid's equator is meant, so that a percent
    // is all that can be asked for.
    let shape = Kepler {
        epoch: utc("2024-03-20T00:00:00Z"),
        altitude_km: 500.0,
        eccentricity: 0.0,
        inclination_rad: 0.0,
        node_rad: 0.0,
        perigee_rad: 0.0,
        mean_anomaly_rad: 0.0,
    };
    let orbit = Orbit::Kepler(shape.checked().unwrap());
    let station = Station::new(0.0, 0.0, 0.0);
    for (mask_deg, range_km) in [(10.0, 1694.57), (20.0, 1192.80), (30.0, 909.42), (60.0, 570.51)] {
        let found = passes(&orbit, &station, mask_deg, shape.epoch, shape.epoch.plus_s(86_400.0)).unwrap();
        // A revolution against the turning Earth: 15.2 less 1 of them in a day.
        assert!((14..=16).contains(&found.len()), "{}", found.len());
        for pass in &found {
            assert!((pass.rise.1.range_km / range_km - 1.0).abs() < 0.01, "{mask_deg}: {pass:?}");
            assert!((pass.culmination.1.elevation_deg - 90.0).abs() < 0.1, "{pass:?}");
        }
    }
}

#[test]
fn every_pass_is_found_that_a_fine_search_finds() {
    let (orbit, station) = (micius(), xinglong());
    let (from, days) = (utc("2016-12-19T00:00:00Z"), 6.0);
    // So high that passes last seconds: the coarse steps are longer than those.
    for mask_deg in [0.0, 10.0, 47.0, 80.0] {
        let found = passes(&orbit, &station, mask_deg, from, from.plus_s(days * 86_400.0)).unwrap();
        let above = |second: i32| {
            let at = from.plus_s(f64::from(second));
            station.look(orbit.position(at).unwrap()).elevation_deg > mask_deg
        };
        let last = (days * 86_400.0) as i32;
        let begun = (1..last).filter(|second| above(*second) && !above(second - 1)).count();
        let whole = found.iter().filter(|pass| pass.rise.0 > from).count();
        assert!(begun <= whole && whole <= begun + 2, "{mask_deg}: {begun} and {whole}");
        for pass in &found {
            let (rise, set) = (pass.rise.0, pass.set.0);
            assert!(rise <= pass.culmination.0 && pass.culmination.0 <= set, "{pass:?}");
        }
    }
}

#[test]
fn elements_that_cannot_be_are_refused_with_the_line() {
    let [first, second] = MICIUS;
    let wrong = |first: &str, second: &str| TwoLineElements::parse(first, second).unwrap_err();
    let spoiled = second.replace("97.3699", "97.3698");
    let error = wrong(first, &spoiled);
    assert_eq!(error, ElementsError::Checksum { line: Line::Second, found: '3', computed: 2 });
    assert_eq!(error.line(), Some(Line::Second));
    assert!(matches!(wrong(&first[..60], second), ElementsError::Length { line: Line::First, found: 60 }));
    assert!(matches!(wrong(second, first), ElementsError::Number { line: Line::First, .. }));
    let other = "2 41732  97.3699 267.4500 0013200 178.5836 246.0824 15.23915303 19064";
    assert!(matches!(wrong(first, other), ElementsError::TwoSatellites { .. }), "{:?}", wrong(first, other));
    // 18 revolutions a day lie below the ground.
    let low = "2 41731  97.3699 267.4500 0013200 178.5836 246.0824 18.23915303 19066";
    assert!(matches!(wrong(first, low), ElementsError::BelowTheGround { .. }), "{:?}", wrong(first, low));
    let geostationary = "2 41731  97.3699 267.4500 0013200 178.5836 246.0824 01.00273303 19065";
    let error = wrong(first, geostationary);
    assert!(matches!(error, ElementsError::Slow { .. } | ElementsError::Checksum { .. }), "{error:?}");
}

#[test]
fn a_station_that_never_sees_a_satellite_is_told_the_highest_elevation() {
    // An equatorial orbit of 500 km is never above the horizon of 40 degrees north.
    let shape = Kepler {
        epoch: utc("2024-01-01T00:00:00Z"),
        altitude_km: 500.0,
        eccentricity: 0.0,
        inclination_rad: 0.0,
        node_rad: 0.0,
        perigee_rad: 0.0,
        mean_anomaly_rad: 0.0,
    };
    let (orbit, station) = (Orbit::Kepler(shape), xinglong());
    let until = shape.epoch.plus_s(86_400.0);
    assert!(passes(&orbit, &station, 0.0, shape.epoch, until).unwrap().is_empty());
    let (_, look) = highest(&orbit, &station, shape.epoch, until).unwrap().unwrap();
    assert!((-15.0..-5.0).contains(&look.elevation_deg), "{look:?}");
}

#[test]
fn a_track_of_the_same_way_gives_the_same_pass_and_nothing_beyond_its_ends() {
    // The way of Micius as positions above the ellipsoid: straight up and down from stations tells where they are.
    let orbit = micius();
    let start = utc("2016-12-19T16:47:00Z");
    let samples: Vec<Sample> = (0..=60).map(|index| sample(&orbit, start.plus_s(10.0 * f64::from(index)))).collect();
    let track = Orbit::Track(Track::new(&samples).unwrap());
    let (from, until) = (utc("2016-12-19T16:00:00Z"), utc("2016-12-19T18:00:00Z"));
    let [own, recorded] = [&orbit, &track].map(|orbit| passes(orbit, &xinglong(), 10.0, from, until).unwrap());
    assert_eq!((own.len(), recorded.len()), (1, 1));
    assert!(own[0].rise.0.since_s(recorded[0].rise.0).abs() < 0.01);
    assert!((own[0].culmination.1.range_km - recorded[0].culmination.1.range_km).abs() < 0.01);
    assert!(track.position(utc("2016-12-19T16:46:00Z")).is_err());
    // Below the mask for no part of it: the pass begins and ends with the track.
    let cut = Orbit::Track(Track::new(&samples[20..40]).unwrap());
    let found = passes(&cut, &xinglong(), 10.0, from, until).unwrap();
    assert_eq!(found.len(), 1);
    assert!(found[0].rise.0.since_s(samples[20].at).abs() < 1e-6, "{found:?}");
    assert!(found[0].set.0.since_s(samples[39].at).abs() < 1e-6, "{found:?}");
}

/// Latitude and height by Newton steps on the ellipsoid.
fn sample(orbit: &Orbit, at: Utc) -> Sample {
    let point = orbit.position(at).unwrap();
    let lon_deg = point.y.atan2(point.x).to_degrees();
    let outward = point.x.hypot(point.y);
    let mut lat = point.z.atan2(outward);
    for _ in 0..20 {
        let foot = Station::new(lat.to_degrees(), lon_deg, 0.0).position();
        let (out, up) = (outward - foot.x.hypot(foot.y), point.z - foot.z);
        lat += (up * lat.cos() - out * lat.sin()) / 6900.0;
    }
    let foot = Station::new(lat.to_degrees(), lon_deg, 0.0).position();
    Sample { at, lat_deg: lat.to_degrees(), lon_deg, height_km: point.minus(foot).norm() }
}

#[test]
fn the_night_of_the_first_keys_was_dark_and_had_a_moon() {
    let sky = Sky::at(&xinglong(), utc("2016-12-19T16:52:14Z"));
    // Local midnight in winter; the Moon was two days before its last quarter.
    assert!(sky.sun_elevation_deg < -60.0, "{sky:?}");
    assert!((0.55..0.75).contains(&sky.moon_lit), "{sky:?}");
    assert!(sky.moon_elevation_deg > 0.0, "{sky:?}");
}
