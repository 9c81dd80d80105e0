//! Satellites: orbits of sites, and the way of light between one and the ground.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use orbits::Utc;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{Provenance, provenance_map};
use crate::quantity::{Angle, Fraction, Length, Loss, Rate, Wavelength};

/// A moment in universal time, as it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Moment {
    text: String,
    utc: Utc,
}

pub(crate) const MOMENT_FORMAT: &str = "utc-time";

impl Moment {
    pub fn parse(text: &str) -> Option<Self> {
        text.parse().ok().map(|utc| Self { text: text.to_owned(), utc })
    }

    pub fn utc(&self) -> Utc {
        self.utc
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Moment::parse(&text).ok_or_else(|| de::Error::custom("not a time in UTC"))
    }
}

impl JsonSchema for Moment {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Moment".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": MOMENT_FORMAT,
            "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{1,6})?Z$",
            "maxLength": 32,
            "examples": ["2016-12-19T16:48:00Z"],
        })
    }
}

/// The orbit of a site that is a satellite.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Orbit {
    /// Two-line elements of a catalogue, propagated by SGP4.
    TwoLine(TwoLine),
    /// An ellipse with the drifts that the Earth's flattening causes (J2).
    Kepler(KeplerOrbit),
}

/// Two-line elements of a catalogue, propagated by SGP4.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TwoLine {
    /// The line that begins with 1.
    #[schemars(length(min = 1, max = 80))]
    pub line1: String,
    /// The line that begins with 2.
    #[schemars(length(min = 1, max = 80))]
    pub line2: String,
}

/// An ellipse with the drifts that the Earth's flattening causes (J2).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeplerOrbit {
    /// When the angles hold.
    pub epoch: Moment,
    /// Semi-major axis less the radius of the equator.
    pub altitude: Length,
    /// How far it is from a circle; 0 unless given.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1))]
    pub eccentricity: f64,
    /// Angle between the planes of orbit and equator.
    pub inclination: Angle,
    /// Right ascension of the ascending node.
    pub ascending_node: Angle,
    /// Angle from the node to the lowest point; 0 unless given.
    #[serde(default = "no_angle")]
    pub perigee: Angle,
    /// Where the satellite is, from the lowest point.
    pub mean_anomaly: Angle,
}

fn no_angle() -> Angle {
    Angle::preset("0 deg")
}

/// The way of light between a satellite and a ground station.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FreeSpace {
    /// Elevation above which there is light: what is above it is a pass.
    pub elevation_mask: Angle,
    /// Half angle of the beam at which its intensity has fallen to 1/e^2.
    pub divergence: Angle,
    /// Jitter of the beam's direction, a standard deviation in each of two axes.
    #[serde(default = "no_angle")]
    pub pointing: Angle,
    /// Of an uplink, which needs it: full width at half maximum of a star's image at the zenith.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seeing: Option<Angle>,
    /// Part of the light that the air lets through at the zenith.
    pub zenith_transmittance: Fraction,
    /// Diameter of the receiving telescope.
    pub aperture: Length,
    /// Diameter of what shades its middle.
    #[serde(default = "no_length")]
    pub obscuration: Length,
    /// Optics behind the telescope, without the detectors' efficiency.
    #[serde(default = "no_loss")]
    pub optics_loss: Loss,
    /// Light of the sky that reaches the detectors of a downlink.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sky: Option<SkyLight>,
    /// Clicks per second of all detectors together by other light, such as that of a town.
    #[serde(default = "no_rate")]
    pub stray_light: Rate,
    /// Where these values come from.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "provenance_map")]
    pub provenance: Provenance,
}

/// What a telescope lets in of the light of Sun, Moon and stars.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SkyLight {
    /// Full angle of the field of view.
    pub field_of_view: Angle,
    /// Width of the filter.
    pub filter: Wavelength,
}

fn no_length() -> Length {
    Length::preset("0 m")
}

fn no_loss() -> Loss {
    Loss::preset("0 dB")
}

fn no_rate() -> Rate {
    Rate::preset("0 cps")
}
