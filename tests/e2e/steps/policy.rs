//! What is not in the plan is refused: by the network, and by the certificates behind it.

use super::applications::{INRIA, OBSERVATORY, UNIVERSITY, reaching, run_pod};
use super::{NAMESPACE, NETWORK};
use crate::cluster::{objects, of};
use crate::harness::Suite;

pub fn run(suite: &mut Suite) {
    suite.step("a pod that is no application of the site reaches no key store", || {
        let url = INRIA.url();
        // Even with a good certificate: the label says that it belongs elsewhere.
        let secret = INRIA.secret();
        let said = run_pod("stranger", "nobody", &secret, &["key", "status", "--to", "university", "--url", &url]);
        let said = said.expect_err("a pod that is not in the plan");
        assert!(!said.contains("401"), "it reached the key store: {said}");
        let words = ["key", "status", "--to", "university", "--url", &url];
        reaching(|| run_pod("known", "inria", &secret, &words)).expect("the application itself");
    });
    suite.step("an application of another site is refused by the key store", || {
        let url = UNIVERSITY.url();
        let secret = OBSERVATORY.secret();
        // The label lets it through, its certificate does not.
        let words = ["key", "get", "--to", "inria", "--url", &url];
        let said = reaching(|| run_pod("other", "university", &secret, &words));
        let said = said.expect_err("an application of another site");
        assert!(said.contains("401"), "{said}");
    });
    suite.step("every pod of the network is closed but for the plan", || {
        let policies = objects(NAMESPACE, "networkpolicies", &of(NETWORK));
        let pods = objects(NAMESPACE, "pods", &of(NETWORK));
        assert_eq!(policies.len(), pods.len() + 1, "one for each pod and one that denies");
        assert!(policies.iter().any(|policy| policy["spec"]["ingress"].is_null()
            && policy["spec"]["policyTypes"].to_string().contains("Egress")));
    });
}
