//! Figures of a link as services tell them: the names, units and limits are those of `topology::figure`.

use proto::detector::v1::ModuleStatus;
use proto::figure::v1 as wire;
use proto::figure::v1::figure::Measured as WireMeasured;
use topology::figure::{Figures, Measured};

/// What a status tells.
pub fn tell(figures: &Figures) -> Vec<wire::Figure> {
    let one = |(name, unit, measured): (&str, &str, Measured)| wire::Figure {
        name: name.to_owned(),
        unit: unit.to_owned(),
        measured: Some(match measured {
            Measured::Value(value) => WireMeasured::Value(value),
            Measured::Ratio { count, total } => WireMeasured::Ratio(wire::Ratio { count, total }),
        }),
    };
    figures.iter().map(one).collect()
}

/// What a status told. Names that are not known here stay; what makes no sense is left out.
pub fn hear(told: &[wire::Figure]) -> Figures {
    let mut figures = Figures::default();
    for figure in told {
        let measured = match &figure.measured {
            Some(WireMeasured::Value(value)) => Measured::Value(*value),
            Some(WireMeasured::Ratio(ratio)) => Measured::Ratio { count: ratio.count, total: ratio.total },
            // A newer version may measure in another way.
            None => continue,
        };
        figures.hear(&figure.name, &figure.unit, measured);
    }
    figures
}

/// The module's last measurements; figures of all its blocks fill the gaps. Error rates are of the last block alone, never
/// the mean of a run.
pub fn of_module(status: &ModuleStatus) -> Figures {
    let mut figures = hear(&status.figures);
    figures.complete(hear(&status.counted));
    figures
}

#[cfg(test)]
mod tests {
    use topology::figure::Figure;

    use super::*;

    #[test]
    fn what_is_told_is_heard_and_what_makes_no_sense_is_not() {
        let mut figures = Figures::of([(Figure::Pump, 1.5), (Figure::ClockOffset, -3.25)]);
        figures.set(Figure::QberZ, Measured::ratio(42, 1000));
        let mut told = tell(&figures);
        assert_eq!(hear(&told), figures);
        told.push(wire::Figure { name: "visibility".to_owned(), unit: "1".to_owned(), measured: None });
        let infinite = Some(WireMeasured::Value(f64::INFINITY));
        told.push(wire::Figure { name: "peakWidth".to_owned(), unit: "ps".to_owned(), measured: infinite });
        assert_eq!(hear(&told), figures);
    }
}
