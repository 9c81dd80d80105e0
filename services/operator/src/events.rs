//! What happened, as events beside the object.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};

use crate::apply::Changes;
use crate::settings::OPERATOR;
use crate::status::{self, Transition};

/// The API takes a note of a kilobyte.
const NOTE_CHARS_MAX: usize = 900;

/// Writes events; one that cannot be written is logged, because nothing depends on it.
pub struct Events {
    recorder: Recorder,
}

impl Events {
    pub fn new(client: Client) -> Self {
        let instance = std::env::var("POD_NAME").ok();
        Self { recorder: Recorder::new(client, Reporter { controller: OPERATOR.to_owned(), instance }) }
    }

    pub async fn applied(&self, reference: &ObjectReference, changes: Changes) {
        let Changes { created, updated, deleted } = changes;
        let note = format!("{created} objects made, {updated} changed, {deleted} removed");
        self.publish(reference, EventType::Normal, "Applied", "Apply", note).await;
    }

    pub async fn told(&self, reference: &ObjectReference, services: &[String]) {
        let note = format!("told of changed settings, without a start: {}", services.join(", "));
        self.publish(reference, EventType::Normal, "SettingsChanged", "Tell", note).await;
    }

    pub async fn renewed(&self, reference: &ObjectReference, link: &str) {
        let note = format!("an end of {link} lost its volume: both ends get a fresh authentication secret");
        self.publish(reference, EventType::Warning, "VolumeLost", "Rekey", note).await;
    }

    pub async fn restored(&self, reference: &ObjectReference, request: &str) {
        let note = format!("restore `{request}`: the volumes are given up, every store starts over with fresh secrets");
        self.publish(reference, EventType::Normal, "Restored", "Restore", note).await;
    }

    pub async fn reserve_replaced(
        &self,
        reference: &ObjectReference,
        (link, site): &(String, String),
        by: &str,
        at: Timestamp,
    ) {
        let note = format!("{link}, end at {site}: `{by}` replaced the authentication reserve at {at}");
        self.publish(reference, EventType::Warning, "ReserveReplaced", "Rekey", note).await;
    }

    pub async fn transition(&self, reference: &ObjectReference, transition: &Transition<'_>) {
        let kind = if transition.good { EventType::Normal } else { EventType::Warning };
        let condition = transition.condition;
        let action = match condition.type_.as_str() {
            status::ACCEPTED => "Validate",
            status::PROVISIONED => "Provision",
            _ => "Watch",
        };
        self.publish(reference, kind, &condition.reason, action, condition.message.clone()).await;
    }

    async fn publish(&self, reference: &ObjectReference, type_: EventType, reason: &str, action: &str, note: String) {
        let note = Some(note.chars().take(NOTE_CHARS_MAX).collect());
        let event = Event { type_, reason: reason.to_owned(), note, action: action.to_owned(), secondary: None };
        if let Err(error) = self.recorder.publish(&event, reference).await {
            tracing::info!(%error, reason, "event not written");
        }
    }
}
