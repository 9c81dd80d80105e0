//! Places on the ground and what they see.

use libm::{asin, atan2, cos, sin, sqrt};

use crate::frames::Vector;

/// WGS 84.
pub(crate) const EQUATOR_KM: f64 = 6378.137;
const FLATTENING: f64 = 1.0 / 298.257_223_563;

/// A place on or above the WGS 84 ellipsoid.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Station {
    lat_rad: f64,
    lon_rad: f64,
    position: Vector,
}

/// How a station sees a point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Look {
    pub elevation_deg: f64,
    /// From north over east.
    pub azimuth_deg: f64,
    pub range_km: f64,
}

impl Station {
    /// Degrees, north and east positive; height above the ellipsoid.
    pub fn new(lat_deg: f64, lon_deg: f64, height_km: f64) -> Self {
        let (lat_rad, lon_rad) = (lat_deg.to_radians(), lon_deg.to_radians());
        Self { lat_rad, lon_rad, position: geodetic(lat_rad, lon_rad, height_km) }
    }

    pub fn position(&self) -> Vector {
        self.position
    }

    /// A point in axes that turn with the Earth.
    pub fn look(&self, point: Vector) -> Look {
        let way = point.minus(self.position);
        let (east, north, up) = self.local(way);
        let range_km = way.norm();
        let elevation_rad = asin((up / range_km).clamp(-1.0, 1.0));
        let azimuth_deg = atan2(east, north).to_degrees();
        let azimuth_deg = if azimuth_deg < 0.0 { azimuth_deg + 360.0 } else { azimuth_deg };
        Look { elevation_deg: elevation_rad.to_degrees(), azimuth_deg, range_km }
    }

    fn local(&self, way: Vector) -> (f64, f64, f64) {
        let (sin_lat, cos_lat) = (sin(self.lat_rad), cos(self.lat_rad));
        let (sin_lon, cos_lon) = (sin(self.lon_rad), cos(self.lon_rad));
        let outward = way.x * cos_lon + way.y * sin_lon;
        let east = way.y * cos_lon - way.x * sin_lon;
        (east, way.z * cos_lat - outward * sin_lat, outward * cos_lat + way.z * sin_lat)
    }
}

/// A place of the ellipsoid's coordinates, in axes that turn with the Earth.
pub(crate) fn geodetic(lat_rad: f64, lon_rad: f64, height_km: f64) -> Vector {
    let squared = FLATTENING * (2.0 - FLATTENING);
    let (sin_lat, cos_lat) = (sin(lat_rad), cos(lat_rad));
    let normal = EQUATOR_KM / sqrt(1.0 - squared * sin_lat * sin_lat);
    let outward = (normal + height_km) * cos_lat;
    let z = (normal * (1.0 - squared) + height_km) * sin_lat;
    Vector::new(outward * cos(lon_rad), outward * sin(lon_rad), z)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ellipsoid_has_the_published_polar_radius() {
        let pole = Station::new(90.0, 0.0, 0.0).position();
        assert!((pole.norm() - 6356.752_314_245).abs() < 1e-9, "{}", pole.norm());
        let equator = Station::new(0.0, 90.0, 1.0).position();
        assert!((equator.y - 6379.137).abs() < 1e-9);
    }

    #[test]
    fn what_is_above_is_overhead_and_what_is_north_is_at_azimuth_0() {
        let station = Station::new(40.0, 117.0, 0.9);
        let above = Station::new(40.0, 117.0, 500.9).position();
        let look = station.look(above);
        assert!((look.elevation_deg - 90.0).abs() < 1e-6, "{look:?}");
        assert!((look.range_km - 500.0).abs() < 1e-9);
        let north = station.look(Station::new(41.0, 117.0, 0.9).position());
        assert!(north.azimuth_deg < 1e-6 || north.azimuth_deg > 359.999, "{north:?}");
        let east = station.look(Station::new(40.0, 118.0, 0.9).position());
        assert!((east.azimuth_deg - 90.0).abs() < 0.5, "{east:?}");
    }
}
