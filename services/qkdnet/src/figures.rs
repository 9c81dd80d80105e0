//! Figures by name, as JSON has them.

use std::collections::BTreeMap;

use serde::Serialize;
use topology::figure::Figure;

/// Values in the units of the registry. What was not measured is not there.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Figures(BTreeMap<&'static str, f64>);

impl Figures {
    pub fn of<V: Into<Option<f64>>, const N: usize>(values: [(Figure, V); N]) -> Self {
        let measured = |(figure, value): (Figure, V)| Some((figure.name(), value.into().filter(|v| v.is_finite())?));
        Self(values.into_iter().filter_map(measured).collect())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_their_names_and_what_is_not_measured_is_left_out() {
        let values = [(Figure::QberZ, Some(0.0424)), (Figure::QberX, None), (Figure::PeakWidth, Some(f64::NAN))];
        assert_eq!(serde_json::to_string(&Figures::of(values)).unwrap(), r#"{"qberZ":0.0424}"#);
        assert_eq!(serde_json::to_string(&Figures::of([(Figure::Pump, 1.5)])).unwrap(), r#"{"pump":1.5}"#);
    }
}
