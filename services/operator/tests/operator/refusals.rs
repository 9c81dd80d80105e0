//! Topologies that are wrong in one way each: refused with the field's name, and with the words of `qkdnet validate`.

use operator::resource::TopologyObject;
use operator::validate::validate;
use serde_json::{Value, json};

use crate::support::{NAMESPACE, chain};

fn object(text: &str) -> TopologyObject {
    let mut object: Value = serde_yaml::from_str(text).unwrap();
    object["metadata"]["namespace"] = json!(NAMESPACE);
    serde_json::from_value(object).unwrap()
}

/// What is replaced by what, and the beginning of what is said.
const WRONG: [(&str, &str, &str); 20] = [
    ("length: 10 km", "length: 10 dB", "spec.links[0].arms[0].fibre.length: \"10 dB\" has the unit \"dB\""),
    ("length: 10 km", "length: 10", "spec.links[0].arms[0].fibre.length: the number 10 has no unit"),
    ("length: 10 km", "length: -1 km", "spec.links[0].arms[0].fibre.length: \"-1 km\" is negative"),
    ("efficiency: 80 %", "efficiency: 180 %", "spec.links[0].arms[0].detector.efficiency: \"180 %\" is above 100 %"),
    ("efficiency: 80 %", "efficiency: 0 %", "spec.links[0].arms[0].detector.efficiency: a detector that sees nothing"),
    ("type: snspd", "type: snsdp", "spec.links[0].arms[0].detector.type: unknown type \"snsdp\""),
    ("type: spdc-cw", "type: laser", "spec.links[0].source.type: unknown type \"laser\""),
    ("source: {site: west", "source: {site: nowhere", "spec.links[0].source.site: there is no site \"nowhere\""),
    ("- {site: west", "- {site: wset", "spec.links[0].arms[0].site: there is no site \"wset\""),
    ("- {site: west", "- {site: middle", "spec.links[0].arms[1].site: both arms end at \"middle\""),
    ("name: me", "name: wm", "spec.links[1].name: a second link with the name \"wm\""),
    ("{name: east, saes", "{name: west, saes", "spec.sites[2].name: a second site with the name \"west\""),
    ("[app-east]", "[app-west]", "spec.sites[2].saes[0]: a second application with the name \"app-west\""),
    ("{name: west, saes", "{name: West, saes", "spec.sites[0].name: \"West\" is not a name"),
    ("window: 120 ps", "window: 1 ns", "spec.links[0].window: a window of 1 ns is wider than the analyser's delay"),
    ("window: 120 ps", "widow: 120 ps", "spec.links[0].widow: unknown field \"widow\""),
    ("protocol: bbm92-energy-time", "protocol: bb84", "spec.links[0].protocol: found \"bb84\""),
    ("pairRate: 1e8 /s", "pairRate: 0 /s", "spec.links[0].source.pairRate: a rate of 0 /s"),
    ("spec:\n", "spec:\n  run: {epoch: 3 s}\n", "spec.run.epoch: an epoch of 3 s"),
    ("spec:\n", "spec:\n  packing: tight\n", "spec.packing: found \"tight\""),
];

#[test]
fn each_mistake_is_named_with_its_field() {
    assert!(validate(&object(&chain())).is_ok());
    for (right, wrong, words) in WRONG {
        let text = chain().replacen(right, wrong, 1);
        assert_ne!(text, chain(), "{right}");
        let said = validate(&object(&text)).unwrap_err().to_string();
        assert!(said.contains(words), "{wrong}:\n{said}\nlacks\n{words}");
    }
}

#[test]
fn the_words_are_those_of_the_command_line() {
    for (right, wrong, _) in WRONG {
        let text = chain().replacen(right, wrong, 1);
        let Err(problems) = topology::parse("file", text.as_bytes()) else { panic!("{wrong} is taken") };
        let said = validate(&object(&text)).unwrap_err().to_string();
        for problem in problems.diagnostics {
            assert!(said.contains(&problem.message), "{said}\nlacks\n{}", problem.message);
        }
    }
}

#[test]
fn a_long_list_of_problems_is_cut_and_counted() {
    let text = chain().replace(" km", " parsec").replace(" ps", " parsec").replace(" %", " parsec");
    let said = validate(&object(&text)).unwrap_err().to_string();
    assert!(said.contains("; and ") && said.ends_with(" more") && said.len() < 4100, "{said}");
}

#[test]
fn rubbish_in_the_place_of_a_specification_is_refused_and_harmless() {
    for spec in [json!(null), json!(7), json!([]), json!({}), json!({"sites": null, "links": {"a": 1}})] {
        let mut object = object(&chain());
        object.spec = spec;
        assert!(!validate(&object).unwrap_err().to_string().is_empty());
    }
}
