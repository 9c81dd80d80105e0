//! Whether the cluster already has what is wanted, so that nothing is written that changes nothing.

use serde_json::Value;
use topology::quantity::Decimal;

/// Whether `live` has every field of `wanted` with the same value. What the API server or others added is no
/// difference; a list is compared as a whole.
pub fn covers(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => wanted.iter().all(|(key, value)| match live.get(key) {
            Some(found) => covers(found, value),
            None => is_nothing(value),
        }),
        (Value::Array(live), Value::Array(wanted)) => {
            live.len() == wanted.len() && live.iter().zip(wanted).all(|(live, wanted)| covers(live, wanted))
        }
        (Value::String(live), Value::String(wanted)) => live == wanted || same_quantity(live, wanted),
        (live, wanted) => live == wanted,
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

/// The API server writes quantities its own way: `1024Mi` comes back as `1Gi`.
fn same_quantity(a: &str, b: &str) -> bool {
    matches!((quantity(a), quantity(b)), (Some(a), Some(b)) if a == b)
}

/// The number behind a quantity of Kubernetes, to the last digit: `9m` is `0.009`.
pub fn quantity(text: &str) -> Option<Decimal> {
    /// Suffix, factor and power of ten.
    const SUFFIXES: [(&str, i128, i32); 16] = [
        ("Ki", 1 << 10, 0),
        ("Mi", 1 << 20, 0),
        ("Gi", 1 << 30, 0),
        ("Ti", 1 << 40, 0),
        ("Pi", 1 << 50, 0),
        ("Ei", 1 << 60, 0),
        ("n", 1, -9),
        ("u", 1, -6),
        ("m", 1, -3),
        ("k", 1, 3),
        ("M", 1, 6),
        ("G", 1, 9),
        ("T", 1, 12),
        ("P", 1, 15),
        ("E", 1, 18),
        ("", 1, 0),
    ];
    let (suffix, factor, power) = SUFFIXES.iter().find(|(suffix, ..)| text.ends_with(suffix))?;
    let digits = text.strip_suffix(suffix)?;
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if plain { digits.parse::<Decimal>().ok()?.scaled(*factor, *power) } else { None }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_others_added_is_no_difference_and_what_they_changed_is() {
        let wanted = json!({"spec": {"replicas": 1, "ports": [{"port": 1}], "empty": {}, "size": "1024Mi"}});
        let live = json!({"spec": {"replicas": 1, "ports": [{"port": 1, "protocol": "TCP"}], "x": 2, "size": "1Gi"}});
        assert!(covers(&live, &wanted));
        for (path, value) in [("/spec/replicas", json!(2)), ("/spec/ports", json!([])), ("/spec/size", json!("1Mi"))] {
            let mut other = live.clone();
            *other.pointer_mut(path).expect("a path of the object") = value;
            assert!(!covers(&other, &wanted), "{path}");
        }
        assert!(!covers(&json!({"spec": {}}), &wanted));
    }

    #[test]
    fn quantities_are_equal_by_value() {
        assert!(same_quantity("1000m", "1") && same_quantity("2048Ki", "2Mi"));
        for thousandths in 1..2000 {
            let point = format!("{}.{:03}", thousandths / 1000, thousandths % 1000);
            assert!(same_quantity(&format!("{thousandths}m"), &point), "{point}");
        }
        assert!(!same_quantity("1", "2") && !same_quantity("nice", "nice2") && !same_quantity("", "Mi"));
    }
}
