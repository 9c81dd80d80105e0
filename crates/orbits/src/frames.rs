//! Vectors, and the turn from the axes of the stars to those of the Earth.

use libm::{cos, sin, sqrt};

use crate::time::Utc;

/// Three coordinates; of positions, km.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Vector {
    pub x: f64,
    pub y: f64,
    pub z: f64,
}

impl Vector {
    pub const fn new(x: f64, y: f64, z: f64) -> Self {
        Self { x, y, z }
    }

    pub fn minus(self, other: Self) -> Self {
        Self::new(self.x - other.x, self.y - other.y, self.z - other.z)
    }

    pub fn dot(self, other: Self) -> f64 {
        self.x * other.x + self.y * other.y + self.z * other.z
    }

    pub fn norm(self) -> f64 {
        sqrt(self.dot(self))
    }

    /// The same point in axes that are turned by `angle` around z.
    pub(crate) fn in_turned_axes(self, angle: f64) -> Self {
        let (sine, cosine) = (sin(angle), cos(angle));
        Self::new(self.x * cosine + self.y * sine, self.y * cosine - self.x * sine, self.z)
    }

    /// From the equator and equinox of date to axes that turn with the Earth.
    pub(crate) fn to_earth(self, at: Utc) -> Self {
        self.in_turned_axes(at.sidereal_rad())
    }
}
