use super::*;

#[test]
fn a_quantity_is_read_in_every_unit_of_its_dimension() {
    assert_eq!("19.2 km".parse::<Length>().unwrap().value(), 19.2);
    assert_eq!("19200m".parse::<Length>().unwrap().value(), 19.2);
    assert_eq!("0.5 s".parse::<Duration>().unwrap().rounded(), 500_000_000_000);
    assert_eq!("2 µs".parse::<Duration>().unwrap().rounded(), 2_000_000);
    assert_eq!("3.21e8 /s".parse::<Rate>().unwrap().value(), 3.21e8);
    assert_eq!("85 %".parse::<Fraction>().unwrap().value(), 0.85);
    assert_eq!("7 ps/s".parse::<FrequencyError>().unwrap().value(), 7e-12);
    assert_eq!("-3 ms".parse::<TimeOffset>().unwrap().value(), -3e9);
    assert_eq!("180 deg".parse::<Angle>().unwrap().value(), std::f64::consts::PI);
}

/// Every decimal with up to three digits behind the point, in the units that people choose for times.
#[test]
fn a_duration_is_whole_picoseconds_exactly_where_arithmetic_says_so() {
    for (unit, unit_ps) in [
        ("us", 1_000_000),
        ("ms", 1_000_000_000),
        ("s", 1_000_000_000_000),
        ("min", 60_000_000_000_000),
        ("h", 3_600_000_000_000_000u64),
    ] {
        for thousandths in 0..30_000u64 {
            let text = format!("{}.{:03} {unit}", thousandths / 1000, thousandths % 1000);
            let duration: Duration = text.parse().unwrap();
            let exact_ps = thousandths * (unit_ps / 1000);
            assert_eq!((duration.whole(), duration.rounded()), (Some(exact_ps.into()), exact_ps), "{text}");
            // What physics calculates with is what it always was.
            let number: f64 = text.split(' ').next().unwrap().parse().unwrap();
            assert_eq!(duration.value().to_bits(), (number * unit_ps as f64).to_bits(), "{text}");
        }
    }
}

#[test]
fn quantities_are_compared_exactly_whatever_their_units() {
    let duration = |text: &str| text.parse::<Duration>().unwrap();
    assert_eq!(duration("1.1 min"), duration("66 s"));
    assert_eq!(duration("8.7 min"), duration("522000 ms"));
    assert!(duration("0.0000000000001 ps") > duration("0 ps"));
    assert!(duration("2.18 s") > duration("2179.9999999999999 ms"));
    assert_eq!(duration("0.5 ps").whole(), None);
    assert_eq!("180 deg".parse::<Angle>().unwrap().exact(), None);
    assert_eq!("-2.5 ps".parse::<TimeOffset>().unwrap().rounded_signed(), -3);
}

#[test]
fn what_is_not_a_quantity_says_why() {
    assert_eq!("fast".parse::<Length>(), Err(QuantityError::NotANumber));
    assert_eq!(".5 km".parse::<Length>(), Err(QuantityError::NotANumber));
    assert_eq!("5. km".parse::<Length>(), Err(QuantityError::NotANumber));
    assert_eq!("1e999 km".parse::<Length>(), Err(QuantityError::NotANumber));
    assert_eq!("-1e-999 km".parse::<Length>(), Err(QuantityError::Negative));
    assert_eq!("0.1234567890123456789012345678901 s".parse::<Duration>(), Err(QuantityError::TooManyDigits));
    assert_eq!(format!("1.{} s", "0".repeat(40)).parse::<Duration>(), Err(QuantityError::TooLong));
    assert_eq!("19.2".parse::<Length>(), Err(QuantityError::MissingUnit));
    assert_eq!("-1 dB".parse::<Loss>(), Err(QuantityError::Negative));
    assert_eq!("101 %".parse::<Fraction>(), Err(QuantityError::TooLarge { max: "100 %".into() }));
    let unknown = |text: &str| match text.parse::<Length>() {
        Err(QuantityError::UnknownUnit { suggestion, noun_of_unit, .. }) => (suggestion, noun_of_unit),
        other => panic!("{text}: {other:?}"),
    };
    assert_eq!(unknown("19.2 KM"), (Some("km"), None));
    assert_eq!(unknown("19.2 ns"), (None, Some("a duration")));
}

#[test]
fn a_quantity_is_written_as_it_was_read() {
    for text in ["19.2 km", "3.21e8 /s", "1e-7 rad/s", "30 ns", "4.3 %", "0 ps"] {
        let info = DIMENSIONS.iter().find(|d| (d.check)(text).is_ok()).unwrap();
        assert!((info.check)(text).is_ok());
    }
    assert_eq!("3.21e8 /s".parse::<Rate>().unwrap().to_string(), "3.21e8 /s");
    assert_eq!("30 ns".parse::<Duration>().unwrap().to_string(), "30 ns");
    assert_eq!("0 ps".parse::<Duration>().unwrap().to_string(), "0 ps");
}

#[test]
fn every_example_is_of_its_own_dimension_and_every_format_is_unique() {
    for (index, info) in DIMENSIONS.iter().enumerate() {
        assert_eq!((info.check)(info.example), Ok(()), "{}", info.format);
        assert!(DIMENSIONS[index + 1..].iter().all(|other| other.format != info.format));
    }
}
