//! Topologies that are wrong: refused by the API server or said in `Accepted`, and nothing half-made.

use crate::cluster::{
    apply, condition, eventually, kubectl, objects, of, restricted_namespace, said, success, topology,
};
use crate::harness::Suite;
use crate::topologies::{bright, changed, without_calern};

const NAMESPACE: &str = "e2e-bad";
const NAME: &str = "bad";

/// What is wrong, how it comes about, and what the answer must name.
const WRONG: [(&str, &str, &str, &str); 20] = [
    (
        "a field that does not exist",
        "        window: 120 ps\n",
        "        window: 120 ps\n        windows: 120 ps\n",
        "windows",
    ),
    ("a number without unit", "window: 120 ps", "window: 120", "window"),
    ("a unit of another dimension", "window: 120 ps", "window: 120 km", "window"),
    ("an unknown protocol", "protocol: bbm92-energy-time", "protocol: bb84", "protocol"),
    ("an unknown source", "type: spdc-cw", "type: lamp", "type"),
    ("a site that does not exist", "        - site: sophia\n", "        - site: atlantis\n", "atlantis"),
    ("an application at a source", "{name: plaine-du-var, ", "{name: plaine-du-var, saes: [thief], ", "plaine-du-var"),
    ("two applications of one name", "saes: [inria]", "saes: [university]", "university"),
    ("two sites of one name", "- {name: sophia, ", "- {name: valrose, ", "valrose"),
    ("a name that is no label", "    - name: valrose-sophia\n", "    - name: Valrose_Sophia\n", "name"),
    ("an efficiency above one", "efficiency: 85 %", "efficiency: 185 %", "efficiency"),
    ("a negative loss", "deviceLoss: 1 dB", "deviceLoss: -1 dB", "deviceLoss"),
    ("a window wider than the delay", "window: 120 ps", "window: 500 ps", "window"),
    ("a round that is no number of epochs", "round: 1 s", "round: 1.001 s", "round"),
    ("a latitude beyond the pole", "lat: 43.7166", "lat: 143.7166", "lat"),
    ("a site without a name", "- {name: sophia, ", "- {nom: sophia, ", "nom"),
    ("a packing that does not exist", "spec:\n", "spec:\n  packing: bag\n", "packing"),
    ("a speed that is none", "speed: 1,", "speed: fast,", "speed"),
    ("a reference in a wrong unit", "value: 7069 bit/s", "value: 7069 km", "reference"),
    ("a tolerated error above a half", "toleratedQber: 8 %", "toleratedQber: 80 %", "toleratedQber"),
];

pub fn run(suite: &mut Suite) {
    suite.step("twenty topologies that are wrong are refused with the field's name", || {
        restricted_namespace(NAMESPACE);
        let good = without_calern(&bright(NAME, "speed: 1, seed: 3"));
        let mut problems = Vec::new();
        for (what, from, to, named) in WRONG {
            if let Err(problem) = refused(&changed(&good, from, to), named) {
                problems.push(format!("{what}: {problem}"));
            }
        }
        assert!(problems.is_empty(), "{problems:#?}");
        assert!(objects(NAMESPACE, "all,secrets", &of(NAME)).is_empty(), "something was made");
        success(kubectl(&["delete", "namespace", NAMESPACE, "--timeout=120s"]));
    });
}

/// By the API server, or by the operator.
fn refused(text: &str, named: &str) -> Result<(), String> {
    let output = apply(NAMESPACE, text);
    if !output.status.success() {
        let text = said(&output);
        return if text.contains(named) { Ok(()) } else { Err(text) };
    }
    let message = eventually("a verdict", || {
        let object = topology(NAMESPACE, NAME);
        condition(&object, "Accepted").ok_or_else(|| object["status"].to_string())
    });
    success(kubectl(&["delete", "topology", NAME, "-n", NAMESPACE, "--wait"]));
    let refused = message["status"] == "False" && message["message"].to_string().contains(named);
    if refused { Ok(()) } else { Err(message.to_string()) }
}
