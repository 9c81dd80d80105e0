//! The lines that an account may have: their names, how they are shown, and what sums of which.
//!
//! A line has its name in stored accounts, in JSON and in the attributes of spans, so a name that was given once stays.

/// One sum, or lines that stand alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Book {
    Blocks,
    /// Clicks of the two ends of an entangled link.
    Announcer,
    Matcher,
    /// Clicks of the receiver of a prepared link.
    Receiver,
    /// Bits that are compared in public.
    Check,
    /// Bits of the key.
    Key,
}

/// A line within its book.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Item {
    /// Blocks that ended with stored key, by the evidence or for want of key, and by a lost session.
    BlocksStored,
    BlocksAborted,
    BlocksVoided,
    /// All clicks of the round.
    Clicks,
    /// No partner inside the coincidence window.
    Unmatched,
    /// More than one possible partner.
    Ambiguous,
    /// Matched, in different bases.
    BasisMismatch,
    /// Detectors of both bases fired at once.
    CrossDouble,
    /// Of two kept events within a dead time the second; at a receiver of pulses, whatever comes while a detector is
    /// dead.
    DeadTimeDropped,
    /// Clicks while the clocks were not locked.
    Unlocked,
    /// In the preamble of a session or before it.
    Preamble,
    /// Too far from any moment at which the light of a pulse comes.
    OutsideGate,
    /// Further clicks of the same basis in one coincidence window, or of one pulse: one event is made of them, with a
    /// random bit where they differ.
    Merged,
    /// Words of a tag stream that no detector belongs to.
    Invalid,
    SiftedCheck,
    SiftedKey,
    /// Compared in public.
    CheckDisclosed,
    /// Thrown away with the rest of a voided round.
    CheckVoided,
    /// Differing bits among those that were disclosed.
    CheckErrors,
    /// Corrected bits among those that verified.
    KeyErrors,
    /// In rounds that did not end: session lost, tag wrong, reserve empty.
    Voided,
    /// In blocks from which no key could be made.
    Aborted,
    /// In Cascade frames that did not verify.
    FailedFrames,
    /// Paid for disclosed parities.
    Leaked,
    /// Paid for verification hashes.
    Verification,
    /// Paid for what an eavesdropper may know by the evidence and, with a finite bound, for statistics.
    Amplification,
    /// Key that went into the authentication reserve.
    Authentication,
    /// Key that was handed over.
    Delivered,
}

/// A line of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Line(pub Book, pub Item);

impl Line {
    pub const BLOCKS_STORED: Self = Self(Book::Blocks, Item::BlocksStored);
    pub const BLOCKS_ABORTED: Self = Self(Book::Blocks, Item::BlocksAborted);
    pub const BLOCKS_VOIDED: Self = Self(Book::Blocks, Item::BlocksVoided);
    pub const CHECK_DISCLOSED: Self = Self(Book::Check, Item::CheckDisclosed);
    pub const CHECK_VOIDED: Self = Self(Book::Check, Item::CheckVoided);
    pub const CHECK_ERRORS: Self = Self(Book::Check, Item::CheckErrors);
    pub const SIFTED_KEY: Self = Self(Book::Key, Item::SiftedKey);
    pub const KEY_ERRORS: Self = Self(Book::Key, Item::KeyErrors);
    pub const VOIDED: Self = Self(Book::Key, Item::Voided);
    pub const ABORTED: Self = Self(Book::Key, Item::Aborted);
    pub const FAILED_FRAMES: Self = Self(Book::Key, Item::FailedFrames);
    pub const LEAKED: Self = Self(Book::Key, Item::Leaked);
    pub const VERIFICATION: Self = Self(Book::Key, Item::Verification);
    pub const AMPLIFICATION: Self = Self(Book::Key, Item::Amplification);
    pub const AUTHENTICATION: Self = Self(Book::Key, Item::Authentication);
    pub const DELIVERED: Self = Self(Book::Key, Item::Delivered);

    /// `delivered`, or `announcer.unmatched` where the book has a name.
    pub fn name(self) -> String {
        match self.0.sheet().name {
            Some(book) => format!("{book}.{}", self.1.name()),
            None => self.1.name().to_owned(),
        }
    }
}

/// What one book holds.
pub(super) struct Sheet {
    /// Lines of a book without a name stand among those of the account itself.
    pub name: Option<&'static str>,
    pub heading: Option<&'static str>,
    /// The line that says the sum; without one the parts make it.
    pub whole: Option<Item>,
    /// Every one counts once.
    pub parts: &'static [Item],
    /// A line that counts among those of another.
    pub among: Option<(Item, Item)>,
    /// Parts that are the sum of another book.
    pub carried: &'static [(Item, Book)],
    /// Accounts that were stored before it existed are without it: a blank one is not written.
    pub later: bool,
}

const CLICKS: &[Item] = &[
    Item::Unmatched,
    Item::Ambiguous,
    Item::BasisMismatch,
    Item::CrossDouble,
    Item::DeadTimeDropped,
    Item::Unlocked,
    Item::Merged,
    Item::Invalid,
    Item::SiftedCheck,
    Item::SiftedKey,
];

const RECEIVED: &[Item] = &[
    Item::Unlocked,
    Item::Preamble,
    Item::OutsideGate,
    Item::BasisMismatch,
    Item::CrossDouble,
    Item::DeadTimeDropped,
    Item::Merged,
    Item::Invalid,
    Item::SiftedCheck,
    Item::SiftedKey,
];

const KEY: &[Item] = &[
    Item::Voided,
    Item::Aborted,
    Item::FailedFrames,
    Item::Leaked,
    Item::Verification,
    Item::Amplification,
    Item::Authentication,
    Item::Delivered,
];

const fn clicks(name: &'static str, heading: &'static str, parts: &'static [Item], later: bool) -> Sheet {
    Sheet {
        name: Some(name),
        heading: Some(heading),
        whole: Some(Item::Clicks),
        parts,
        among: None,
        carried: &[(Item::SiftedKey, Book::Key), (Item::SiftedCheck, Book::Check)],
        later,
    }
}

static BLOCKS: Sheet = Sheet {
    name: None,
    heading: None,
    whole: None,
    parts: &[Item::BlocksStored, Item::BlocksAborted, Item::BlocksVoided],
    among: None,
    carried: &[],
    later: false,
};
static ANNOUNCER: Sheet = clicks("announcer", "announcer clicks", CLICKS, false);
static MATCHER: Sheet = clicks("matcher", "matcher clicks", CLICKS, false);
static RECEIVER: Sheet = clicks("receiver", "receiver clicks", RECEIVED, true);
static CHECK: Sheet = Sheet {
    name: None,
    heading: Some("sifted X"),
    whole: None,
    parts: &[Item::CheckDisclosed, Item::CheckVoided],
    among: Some((Item::CheckErrors, Item::CheckDisclosed)),
    carried: &[],
    later: false,
};
static KEY_SHEET: Sheet = Sheet {
    name: None,
    heading: Some("sifted Z"),
    whole: Some(Item::SiftedKey),
    parts: KEY,
    among: Some((Item::KeyErrors, Item::SiftedKey)),
    carried: &[],
    later: false,
};

impl Book {
    /// In the order in which they are written and shown.
    pub const ALL: [Self; 6] = [Self::Blocks, Self::Announcer, Self::Matcher, Self::Receiver, Self::Check, Self::Key];

    pub(super) fn sheet(self) -> &'static Sheet {
        match self {
            Self::Blocks => &BLOCKS,
            Self::Announcer => &ANNOUNCER,
            Self::Matcher => &MATCHER,
            Self::Receiver => &RECEIVER,
            Self::Check => &CHECK,
            Self::Key => &KEY_SHEET,
        }
    }

    /// Every line of the book, in the order in which they are written.
    pub fn lines(self) -> impl Iterator<Item = Line> {
        let Sheet { whole, parts, among, .. } = self.sheet();
        // What counts among the whole is written after it, what counts among a part after all of them.
        let (after_whole, last) = match among {
            Some((item, of)) if Some(*of) == *whole => (Some(*item), None),
            Some((item, _)) => (None, Some(*item)),
            None => (None, None),
        };
        let items = whole.iter().copied().chain(after_whole).chain(parts.iter().copied()).chain(last);
        items.map(move |item| Line(self, item))
    }

    /// What a sum of this book is called where it does not hold.
    pub(super) fn total(self) -> &'static str {
        let sheet = self.sheet();
        sheet.name.or(sheet.whole.map(Item::name)).or(sheet.heading).unwrap_or_default()
    }
}

impl Item {
    /// In JSON and in attributes.
    pub const fn name(self) -> &'static str {
        self.names().0
    }

    /// In tables.
    pub const fn label(self) -> &'static str {
        self.names().1
    }

    const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::BlocksStored => ("blocks_stored", "blocks stored"),
            Self::BlocksAborted => ("blocks_aborted", "blocks aborted"),
            Self::BlocksVoided => ("blocks_voided", "blocks voided"),
            Self::Clicks => ("clicks", "clicks"),
            Self::Unmatched => ("unmatched", "unmatched"),
            Self::Ambiguous => ("ambiguous", "ambiguous"),
            Self::BasisMismatch => ("basis_mismatch", "basis mismatch"),
            Self::CrossDouble => ("cross_double", "cross-basis double"),
            Self::DeadTimeDropped => ("dead_time_dropped", "within dead time"),
            Self::Unlocked => ("unlocked", "not locked"),
            Self::Preamble => ("preamble", "preamble"),
            Self::OutsideGate => ("outside_gate", "outside the gate"),
            Self::Merged => ("merged", "merged doubles"),
            Self::Invalid => ("invalid", "invalid words"),
            Self::SiftedCheck => ("sifted_x", "sifted X"),
            Self::SiftedKey => ("sifted_z", "sifted Z"),
            Self::CheckDisclosed => ("disclosed_x", "disclosed"),
            Self::CheckVoided => ("voided_x", "voided"),
            Self::CheckErrors => ("errors_x", "(errors)"),
            Self::KeyErrors => ("errors_z", "(errors)"),
            Self::Voided => ("voided", "voided"),
            Self::Aborted => ("aborted", "aborted"),
            Self::FailedFrames => ("failed_frames", "failed frames"),
            Self::Leaked => ("leaked", "leaked"),
            Self::Verification => ("verification", "verification"),
            Self::Amplification => ("amplification", "amplification"),
            Self::Authentication => ("authentication", "authentication"),
            Self::Delivered => ("delivered", "delivered"),
        }
    }
}
