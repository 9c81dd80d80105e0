//! A beam between a satellite and the ground: how much of it a telescope takes in, and what light of the sky comes along.
//!
//! What is left out: fading (counts follow the mean, as long as a pulse has far fewer photons than one at the receiver),
//! refraction, and the light of the Earth that an uplink's receiver looks at.

use libm::{exp, exp2, expm1, log10, pow, sin, sqrt};
use serde::{Deserialize, Serialize};

const PI: f64 = core::f64::consts::PI;
/// Planck's constant times the speed of light, J m.
const JOULE_METRES: f64 = 1.986_445_857e-25;

/// A beam and the telescope that receives it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Beam {
    /// Half angle at which the intensity has fallen to 1/e^2.
    pub divergence_rad: f64,
    /// Standard deviation of the direction, in each of two axes.
    pub pointing_rad: f64,
    /// Of an uplink: full width at half maximum of the image of a star at the zenith. The turbulence is at the
    /// transmitter, so that it widens the beam before that spreads; behind a downlink there is no way left to spread over.
    pub seeing_rad: f64,
    pub zenith_transmittance: f64,
    /// Diameter of the receiving telescope, and of what shades its middle.
    pub aperture_m: f64,
    pub obscuration_m: f64,
}

impl Beam {
    /// Part of the light that comes into the telescope, from or to this elevation.
    pub fn transmission(&self, range_km: f64, elevation_deg: f64) -> f64 {
        let air_mass = air_mass(elevation_deg);
        let spread_rad = self.spread_rad(air_mass);
        let air = pow(self.zenith_transmittance, air_mass);
        self.collected(range_km, spread_rad) * self.pointed(spread_rad) * air
    }

    /// Half angle of the mean beam.
    fn spread_rad(&self, air_mass: f64) -> f64 {
        // A Gaussian beam whose width at half maximum is the seeing, which grows with the way through the air.
        let seeing_rad = self.seeing_rad / sqrt(2.0 * core::f64::consts::LN_2) * pow(air_mass, 0.6);
        libm::hypot(self.divergence_rad, seeing_rad)
    }

    /// Part of a centred beam within the aperture.
    fn collected(&self, range_km: f64, spread_rad: f64) -> f64 {
        let width_m = spread_rad * range_km * 1e3;
        let outside = |diameter_m: f64| -0.5 * (diameter_m / width_m) * (diameter_m / width_m);
        // The difference of two exponentials that are both close to 1.
        exp(outside(self.obscuration_m)) * -expm1(outside(self.aperture_m) - outside(self.obscuration_m))
    }

    /// Mean of what a jitter of the direction leaves, for an aperture that is small beside the beam.
    fn pointed(&self, spread_rad: f64) -> f64 {
        let jitter = self.pointing_rad / spread_rad;
        1.0 / (1.0 + 4.0 * jitter * jitter)
    }
}

/// Air on the way, relative to that at the zenith: Kasten and Young, Appl. Opt. 28, 4735 (1989).
pub fn air_mass(elevation_deg: f64) -> f64 {
    let elevation_deg = elevation_deg.clamp(0.0, 90.0);
    1.0 / (sin(elevation_deg.to_radians()) + 0.505_72 * pow(elevation_deg + 6.079_95, -1.6364))
}

/// What a telescope sees of the sky.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Background {
    /// Full angle.
    pub field_of_view_rad: f64,
    pub filter_nm: f64,
    pub wavelength_nm: f64,
}

impl Background {
    /// Photons of the sky per second behind the filter, without the losses of optics.
    pub fn photons_hz(&self, aperture_m: f64, radiance: f64) -> f64 {
        let solid_angle = PI * 0.25 * self.field_of_view_rad * self.field_of_view_rad;
        let area_m2 = PI * 0.25 * aperture_m * aperture_m;
        let watts = radiance * solid_angle * area_m2 * self.filter_nm * 1e-3;
        watts * self.wavelength_nm * 1e-9 / JOULE_METRES
    }
}

/// Brightness of a clear sky near 850 nm, W / (m^2 sr um), by the elevation of Sun and Moon. Orders of magnitude: 1.5e-6
/// without a Moon, ten times that under a full one, 1.5 by day; between the end of astronomical twilight (18 degrees below
/// the horizon) and sunrise its logarithm grows evenly.
pub fn sky_radiance(sun_elevation_deg: f64, moon_elevation_deg: f64, moon_lit: f64) -> f64 {
    const MOONLESS: f64 = 1.5e-6;
    const FULL_MOON: f64 = 1.5e-5;
    const DAY: f64 = 1.5;
    const TWILIGHT_DEG: f64 = 18.0;
    let moon = if moon_elevation_deg > 0.0 { (FULL_MOON - MOONLESS) * moon_lit } else { 0.0 };
    let day = ((sun_elevation_deg + TWILIGHT_DEG) / TWILIGHT_DEG).clamp(0.0, 1.0);
    moon + exp2(day * 10.0 * log10(DAY / MOONLESS) / (10.0 * log10(2.0))) * MOONLESS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loss_db(transmission: f64) -> f64 {
        -10.0 * log10(transmission)
    }

    fn micius() -> Beam {
        Beam {
            divergence_rad: 7.4066e-6,
            pointing_rad: 0.0,
            seeing_rad: 0.0,
            zenith_transmittance: 1.0,
            aperture_m: 1.0,
            obscuration_m: 0.0,
        }
    }

    #[test]
    fn diffraction_over_1200_km_is_the_published_22_db() {
        // Liao et al., Nature 549, 43 (2017).
        let found = loss_db(micius().transmission(1200.0, 90.0));
        assert!((found - 22.0).abs() < 0.002, "{found}");
    }

    #[test]
    fn a_jitter_of_1_2_urad_costs_0_434_db() {
        let beam = Beam { pointing_rad: 1.2e-6, ..micius() };
        let found = loss_db(beam.transmission(1200.0, 90.0) / micius().transmission(1200.0, 90.0));
        assert!((found - 0.434).abs() < 0.002, "{found}");
    }

    #[test]
    fn air_is_as_thick_as_kasten_and_young_say() {
        for (elevation_deg, expected) in [(10.0, 5.5860), (20.0, 2.9031), (30.0, 1.9943)] {
            let found = air_mass(elevation_deg);
            assert!((found / expected - 1.0).abs() < 1e-4, "{elevation_deg}: {found}");
        }
        // A zenith that lets 64.4 % through.
        let beam = Beam { zenith_transmittance: 0.644, ..micius() };
        let found = loss_db(beam.transmission(900.0, 30.0) / micius().transmission(900.0, 30.0));
        assert!((found - 1.9943 * 1.9111).abs() < 1e-3, "{found}");
    }

    #[test]
    fn a_shaded_middle_is_taken_from_the_aperture() {
        // A beam that is wide beside both takes the share of the area.
        let wide = Beam { divergence_rad: 1e-3, ..micius() };
        let shaded = Beam { obscuration_m: 0.5, ..wide };
        let share = shaded.transmission(1000.0, 90.0) / wide.transmission(1000.0, 90.0);
        assert!((share - 0.75).abs() < 1e-6, "{share}");
        // A beam that fits into the aperture comes in whole.
        let narrow = Beam { divergence_rad: 1e-7, ..micius() };
        assert!((narrow.transmission(500.0, 90.0) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn turbulence_widens_an_uplink_and_the_more_the_lower_it_points() {
        let up = Beam { seeing_rad: 5e-6, ..micius() };
        let more_db = |elevation_deg: f64| {
            loss_db(up.transmission(1000.0, elevation_deg) / micius().transmission(1000.0, elevation_deg))
        };
        // 7.4066 and 4.2466 urad are 8.5376 urad together: 1.23 dB for an aperture that is small beside the beam.
        assert!((more_db(90.0) - 1.20).abs() < 0.05, "{}", more_db(90.0));
        assert!(more_db(20.0) > 2.0 * more_db(90.0));
        // And nothing without turbulence.
        let calm = Beam { seeing_rad: 0.0, ..up };
        assert_eq!(calm.transmission(1000.0, 45.0), micius().transmission(1000.0, 45.0));
    }

    #[test]
    fn the_sky_is_as_bright_as_stated_and_twilight_lies_between() {
        assert!((sky_radiance(-30.0, -10.0, 1.0) / 1.5e-6 - 1.0).abs() < 1e-12);
        assert!((sky_radiance(-30.0, 40.0, 1.0) / 1.5e-5 - 1.0).abs() < 1e-12);
        assert!((sky_radiance(20.0, -10.0, 0.0) / 1.5 - 1.0).abs() < 1e-9);
        assert!((sky_radiance(-9.0, -10.0, 0.0) / 1.5e-3 - 1.0).abs() < 1e-9);
        // 1 m, 100 urad, 1 nm at 850 nm under a full moon: some 400 photons a second.
        let background = Background { field_of_view_rad: 1e-4, filter_nm: 1.0, wavelength_nm: 850.0 };
        let found = background.photons_hz(1.0, 1.5e-5);
        assert!((found - 395.9).abs() < 1.0, "{found}");
    }
}
