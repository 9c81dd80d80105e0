//! What of a configuration a service can be told while it runs; anything else takes a start.

use photonics::config::Arm;

use super::{Counts, KmsConfig, KmsPeer, Nature, PacerConfig, ServiceConfig, SourceConfig};

impl SourceConfig {
    /// Loss of the arms, which a running source can be told.
    pub fn losses_db(&self) -> Vec<f64> {
        self.arms().iter().map(|arm| arm.loss_db).collect()
    }

    /// The arms by output that light goes through; that of pulses is one.
    pub fn arms(&self) -> &[Arm] {
        match &self.nature {
            Nature::Pairs(pairs) => &pairs.arms,
            Nature::Counts(Counts::Pairs(counted)) => &counted.light.arms,
            Nature::Pulses(pulses) => std::slice::from_ref(&pulses.arm),
            Nature::Counts(Counts::Pulses(counted)) => std::slice::from_ref(&counted.light.arm),
        }
    }

    fn fixed(mut self) -> Self {
        let arms: &mut [Arm] = match &mut self.nature {
            Nature::Pairs(pairs) => &mut pairs.arms,
            Nature::Counts(Counts::Pairs(counted)) => &mut counted.light.arms,
            Nature::Pulses(pulses) => std::slice::from_mut(&mut pulses.arm),
            Nature::Counts(Counts::Pulses(counted)) => std::slice::from_mut(&mut counted.light.arm),
        };
        arms.iter_mut().for_each(|arm| arm.loss_db = 0.0);
        self
    }
}

impl KmsConfig {
    /// Key stores to which only relays lead: a running key store can be told others.
    pub fn relayed(&self) -> impl Iterator<Item = &KmsPeer> {
        self.peers.iter().filter(|peer| !peer.adjacent)
    }

    /// Peers that may connect whatever a running key store is told.
    pub fn accepts_always(&self) -> impl Iterator<Item = &String> {
        self.accepts.iter().filter(|name| !self.relayed().any(|peer| peer.service == **name))
    }

    /// A running key store can be told whom it serves.
    fn fixed(mut self) -> Self {
        self.saes.clear();
        self
    }
}

impl PacerConfig {
    /// A running pacer can be told which links it keeps together, and how closely. Where it is follows from the first
    /// of them.
    fn fixed(mut self) -> Self {
        self.sources.clear();
        self.accepts.clear();
        self.site.clear();
        self.skew_ps = 0;
        self
    }
}

impl ServiceConfig {
    /// The planned configuration without what a running service can be told: while this stays the same, nothing needs a
    /// start. What comes from the directory can be told as well, and is not in it.
    pub fn fixed(&self) -> Self {
        match self.clone() {
            Self::Source(config) => Self::Source(Box::new(config.fixed())),
            Self::Kms(config) => Self::Kms(Box::new(config.fixed())),
            Self::Pacer(config) => Self::Pacer(Box::new(config.fixed())),
            other @ (Self::Detector(_) | Self::Transmitter(_) | Self::Channel(_) | Self::Relay(_)) => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::plan::{Plan, RunOptions, plan};

    fn plans(from: &str, to: &str) -> [Plan; 2] {
        let text = include_str!("../../tests/written-out/nice.yaml");
        assert!(text.contains(from), "{from}");
        [text.to_owned(), text.replacen(from, to, 1)].map(|text| {
            let document = crate::parse("nice.yaml", text.as_bytes()).unwrap_or_else(|problems| panic!("{problems:?}"));
            plan(&document.topology, &RunOptions::default())
        })
    }

    fn changed(from: &str, to: &str) -> Vec<(String, bool)> {
        let plans = plans(from, to);
        let pairs = plans[0].services.iter().zip(&plans[1].services);
        let differing = pairs.filter(|(a, b)| a.config != b.config);
        differing.map(|(a, b)| (a.name.clone(), a.config.fixed() == b.config.fixed())).collect()
    }

    #[test]
    fn another_loss_is_told_to_the_source_and_starts_nothing() {
        let told = changed("deviceLoss: 9.84214 dB", "deviceLoss: 11 dB");
        assert_eq!(told, [("source-valrose-sophia".to_owned(), true)]);
    }

    #[test]
    fn another_application_is_told_to_every_key_store_and_starts_nothing() {
        let guest = ("saes: [university]", "saes: [university, guest]");
        assert_eq!(changed(guest.0, guest.1), [("kms-valrose".to_owned(), true)]);
        let [before, after] = plans(guest.0, guest.1);
        assert_eq!(before.directory.applications().count() + 1, after.directory.applications().count());
    }

    #[test]
    fn another_skew_is_told_to_the_pacer_and_starts_nothing() {
        let told = changed("latency: 8}", "latency: 8, skew: 3 s}");
        assert_eq!(told, [("pacer".to_owned(), true)]);
    }

    #[test]
    fn another_detector_starts_its_end_and_the_source() {
        let told = changed("efficiency: 85 %", "efficiency: 80 %");
        assert!(!told.is_empty() && told.iter().all(|(_, live)| !live), "{told:?}");
    }
}
