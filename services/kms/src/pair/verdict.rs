//! What two key stores conclude from where they say they stand.
//!
//! The greeting is authenticated (mutual TLS between the two key stores), so that its claims count. Each end says how
//! far it came with the present generation, twice: `least` is what it knows to have done, `most` what it cannot exclude.
//! They differ after a crash alone. Leases and what is redeemed in advance are in `most` and never in `least`.
//! During the dialogue each tells its `least` ten times a second, and the other remembers it, on its disk too.
//!
//! Applications go on while the two greet. So what was redeemed must be older than what it is compared with: the
//! coordinator speaks first, and compares what it had redeemed before it did with what the follower answers. The
//! follower cannot compare what it has redeemed itself; it hears of it from the coordinator.
//!
//! | at the greeting | what it means |
//! | --- | --- |
//! | an instance that is not the remembered one | that store was lost, or voided by `qkdnet restore`: a new generation |
//! | different generations | one end had not heard of the last new generation: a new one |
//! | their `least` redeemed ends behind our `most` drawn | our store was put back: it handed out what it does not know |
//! | the coordinator's `least` redeemed ended behind the follower's `most` drawn | the follower's was |
//! | their remembered `least` drawn ends behind their `most` drawn now | theirs was |
//! | their remembered `least` redeemed is more than their `most` now | theirs was |
//! | the follower has fewer blocks or grants than the coordinator | the follower's was: it puts each on its disk first |
//! | the coordinator has never heard of a block that counts at the follower | the coordinator's was |
//! | less redeemed than was handed out | nothing: keys wait to be fetched |
//! | drawn ends differ from redeemed ends in any other way | nothing |
//!
//! A store whose anchor shows that it was put back says so itself, and is believed.

use proto::kms::v1::{PairHello, PairMarks};

/// One end as it stands at a greeting.
#[derive(Clone, Debug)]
pub(super) struct End {
    pub site: String,
    pub hello: PairHello,
}

impl End {
    fn least(&self) -> PairMarks {
        self.hello.least.unwrap_or_default()
    }

    fn most(&self) -> PairMarks {
        self.hello.most.unwrap_or_default()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Same,
    NewGeneration(&'static str),
    RolledBack { site: String, why: String },
}

const REDEEMED: &str = "the other site redeemed key that this store does not know to have handed out";
const DREW_MORE: &str = "it handed out more before than it knows of now";
const REDEEMED_MORE: &str = "it redeemed more before than it knows of now";
const BEHIND: &str = "it lacks blocks or assignments that it had on its disk before the other site";

/// What this end concludes, whose `most` is as of now and whose `least` is as of when it last spoke; `remembered` is what the other one said before, in this generation.
pub(super) fn verdict(ours: &End, theirs: &End, remembered: &PairMarks, we_coordinate: bool) -> Verdict {
    let is_another = |known: &[u8], met: &[u8]| !known.is_empty() && known != met;
    let ours_is_another = is_another(&theirs.hello.peer_instance, &ours.hello.instance);
    let theirs_is_another = is_another(&ours.hello.peer_instance, &theirs.hello.instance);
    for (end, other) in [(ours, theirs), (theirs, ours)] {
        let Some(known) = &end.hello.rolled_back else { continue };
        // A store that was voided since is another one; what it says of itself holds all the same.
        let voided = if known.site == ours.site { ours_is_another } else { theirs_is_another };
        if known.site == end.site || !voided {
            let site = if known.site == end.site { &end.site } else { &other.site };
            return Verdict::RolledBack { site: site.clone(), why: known.message.clone() };
        }
    }
    if ours_is_another || theirs_is_another {
        return Verdict::NewGeneration("a site has lost its store, or has voided it");
    }
    if ours.hello.generation != theirs.hello.generation {
        return Verdict::NewGeneration("the two sites are out of step");
    }
    let put_back = |end: &End, why: &str| Verdict::RolledBack { site: end.site.clone(), why: why.to_owned() };
    let compared = [Some((ours, theirs)), we_coordinate.then_some((theirs, ours))];
    for (end, other) in compared.into_iter().flatten() {
        let (drawn, redeemed) = (end.most(), other.least());
        if redeemed.supply_redeemed_end > drawn.supply_drawn_end || redeemed.relay_redeemed_end > drawn.relay_drawn_end
        {
            return put_back(end, REDEEMED);
        }
    }
    let now = theirs.most();
    if remembered.supply_drawn_end > now.supply_drawn_end || remembered.relay_drawn_end > now.relay_drawn_end {
        return put_back(theirs, DREW_MORE);
    }
    if remembered.redeemed_bytes > now.redeemed_bytes {
        return put_back(theirs, REDEEMED_MORE);
    }
    let (coordinator, follower) = if we_coordinate { (ours, theirs) } else { (theirs, ours) };
    if follower.hello.stream_end < coordinator.hello.stream_end || follower.hello.grants < coordinator.hello.grants {
        return put_back(follower, BEHIND);
    }
    Verdict::Same
}

#[cfg(test)]
mod tests {
    use proto::anchor::v1::RolledBack;

    use super::*;

    fn end(site: &str) -> End {
        let other = if site == "a" { "b" } else { "a" };
        let marks = PairMarks {
            supply_drawn_end: 100,
            relay_drawn_end: 300,
            supply_redeemed_end: 90,
            relay_redeemed_end: 290,
            redeemed_bytes: 180,
        };
        let hello = PairHello {
            instance: site.as_bytes().to_vec().into(),
            peer_instance: other.as_bytes().to_vec().into(),
            generation: 3,
            stream_end: 1000,
            grants: 4,
            least: Some(marks),
            most: Some(marks),
            ..PairHello::default()
        };
        End { site: site.to_owned(), hello }
    }

    /// The site that was put back, as both ends conclude.
    fn concluded(change: impl Fn(&mut End, &mut End)) -> [Verdict; 2] {
        let (mut a, mut b) = (end("a"), end("b"));
        change(&mut a, &mut b);
        let nothing = PairMarks::default();
        [verdict(&a, &b, &nothing, true), verdict(&b, &a, &nothing, false)]
    }

    fn blamed(verdicts: [Verdict; 2]) -> Vec<String> {
        let site = |verdict| match verdict {
            Verdict::RolledBack { site, .. } => site,
            other => format!("{other:?}"),
        };
        verdicts.into_iter().map(site).collect()
    }

    fn marks(end: &mut End) -> [&mut PairMarks; 2] {
        let hello = &mut end.hello;
        [hello.least.get_or_insert_default(), hello.most.get_or_insert_default()]
    }

    #[test]
    fn each_row_of_the_table_is_concluded_by_the_ends_that_can() {
        assert_eq!(concluded(|_, _| {}), [Verdict::Same, Verdict::Same]);
        // Less redeemed than handed out, by how much ever.
        assert_eq!(
            concluded(|a, _| marks(a).into_iter().for_each(|m| m.supply_drawn_end = 900)),
            [Verdict::Same, Verdict::Same]
        );
        // The follower has redeemed it since the coordinator spoke, for all that it knows.
        assert_eq!(blamed(concluded(|_, b| marks(b)[0].supply_redeemed_end = 101)), ["a", "Same"]);
        assert_eq!(blamed(concluded(|a, _| marks(a)[0].relay_redeemed_end = 301)), ["b", "b"]);
        // A crash has made it doubtful, and it is excluded no more.
        assert_eq!(
            concluded(|a, b| {
                marks(b)[0].supply_redeemed_end = 101;
                marks(a)[1].supply_drawn_end = 4096;
            }),
            [Verdict::Same, Verdict::Same]
        );
        assert_eq!(blamed(concluded(|_, b| b.hello.grants = 3)), ["b", "b"]);
        assert_eq!(concluded(|a, _| a.hello.stream_end = 900), [Verdict::Same, Verdict::Same]);
        let [one, two] = concluded(|a, _| a.hello.generation = 4);
        assert!(matches!((one, two), (Verdict::NewGeneration(_), Verdict::NewGeneration(_))));
        let [one, two] = concluded(|a, _| a.hello.instance = vec![9].into());
        assert!(matches!((one, two), (Verdict::NewGeneration(_), Verdict::NewGeneration(_))));
    }

    #[test]
    fn what_was_said_before_is_held_against_what_is_said_now() {
        let (a, b) = (end("a"), end("b"));
        let same = a.least();
        assert_eq!(verdict(&b, &a, &same, false), Verdict::Same);
        for more in [
            PairMarks { supply_drawn_end: 101, ..same },
            PairMarks { relay_drawn_end: 301, ..same },
            PairMarks { redeemed_bytes: 181, ..same },
        ] {
            let found = verdict(&b, &a, &more, false);
            assert!(matches!(&found, Verdict::RolledBack { site, .. } if site == "a"), "{found:?}");
        }
    }

    #[test]
    fn a_store_that_says_that_it_was_put_back_is_believed_until_it_is_another_one() {
        let known = |site: &str| Some(RolledBack { site: site.to_owned(), ..RolledBack::default() });
        // By its own word, also where the other end does not remember it.
        assert_eq!(blamed(concluded(|a, _| a.hello.rolled_back = known("a"))), ["a", "a"]);
        let restarted = concluded(|a, _| {
            a.hello.rolled_back = known("a");
            a.hello.instance = vec![9].into();
        });
        assert_eq!(blamed(restarted), ["a", "a"]);
        // By the other one's word, until it was voided.
        assert_eq!(blamed(concluded(|_, b| b.hello.rolled_back = known("a"))), ["a", "a"]);
        let [one, two] = concluded(|a, b| {
            b.hello.rolled_back = known("a");
            a.hello.instance = vec![9].into();
        });
        assert!(matches!((one, two), (Verdict::NewGeneration(_), Verdict::NewGeneration(_))));
    }
}
