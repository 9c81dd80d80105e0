//! Fields of JSON from before figures had names. Programs read them, so they stay; no new figure gets one.

use serde::ser::{SerializeMap, Serializer};
use topology::figure::{Figure, Figures, Measured};

/// A field, the figure that it is, and its value where that was not measured.
type Field = (&'static str, Figure, Option<f64>);

/// `figures`, and beside it the fields that a link had.
pub fn of_row<S: Serializer>(figures: &Figures, serializer: S) -> Result<S::Ok, S::Error> {
    const FIELDS: [Field; 11] = [
        ("sifted_z_hz", Figure::SiftedRateZ, None),
        ("sifted_x_hz", Figure::SiftedRateX, None),
        ("qber_z", Figure::QberZ, None),
        ("qber_x", Figure::QberX, None),
        ("clock_offset_ps", Figure::ClockOffset, None),
        ("clock_residual_ps", Figure::ClockResidual, None),
        ("visibility", Figure::Visibility, None),
        ("peak_fwhm_ps", Figure::PeakWidth, None),
        ("pump", Figure::Pump, Some(0.0)),
        ("skr_bps", Figure::SecretKeyRate, None),
        ("skr_finite_bps", Figure::SecretKeyRateFinite, None),
    ];
    write(figures, &FIELDS, &[], serializer)
}

/// The same of a link over a whole run.
pub fn of_summary<S: Serializer>(figures: &Figures, serializer: S) -> Result<S::Ok, S::Error> {
    const FIELDS: [Field; 6] = [
        ("skr_bps", Figure::SecretKeyRate, Some(0.0)),
        ("skr_finite_bps", Figure::SecretKeyRateFinite, Some(0.0)),
        ("qber_z", Figure::QberZ, Some(0.0)),
        ("qber_x", Figure::QberX, Some(0.0)),
        ("authentication_fraction", Figure::AuthenticationShare, Some(0.0)),
        ("peak_fwhm_ps", Figure::PeakWidth, None),
    ];
    write(figures, &FIELDS, &[], serializer)
}

/// The same of a block, with the bits in each basis and those of them that differed.
pub fn of_block<S: Serializer>(figures: &Figures, serializer: S) -> Result<S::Ok, S::Error> {
    const FIELDS: [Field; 2] = [("qber_z", Figure::QberZ, Some(0.0)), ("qber_x", Figure::QberX, Some(0.0))];
    let cases = |figure| match figures.get(figure) {
        Some(Measured::Ratio { count, total }) => (total, count),
        _ => (0, 0),
    };
    let [(sifted_z, errors_z), (sifted_x, errors_x)] = [Figure::QberZ, Figure::QberX].map(cases);
    let counts = [("sifted_z", sifted_z), ("errors_z", errors_z), ("sifted_x", sifted_x), ("errors_x", errors_x)];
    write(figures, &FIELDS, &counts, serializer)
}

fn write<S: Serializer>(
    figures: &Figures,
    fields: &[Field],
    counts: &[(&'static str, u64)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(fields.len() + counts.len() + 1))?;
    for (name, figure, missing) in fields {
        map.serialize_entry(name, &figures.value(*figure).or(*missing))?;
    }
    for (name, count) in counts {
        map.serialize_entry(name, count)?;
    }
    map.serialize_entry("figures", figures)?;
    map.end()
}
