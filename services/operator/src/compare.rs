//! Whether the cluster already has what is wanted, so that nothing is written that changes nothing.

use serde_json::Value;

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

/// The number behind a quantity of Kubernetes.
pub fn quantity(text: &str) -> Option<f64> {
    const SUFFIXES: [(&str, f64); 12] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("", 1.0),
    ];
    let (suffix, factor) = SUFFIXES.iter().find(|(suffix, _)| text.ends_with(suffix))?;
    let digits = text.strip_suffix(suffix)?;
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if plain { Some(digits.parse::<f64>().ok()? * factor) } else { None }
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
        assert!(!same_quantity("1", "2") && !same_quantity("nice", "nice2") && !same_quantity("", "Mi"));
    }
}
