//! An API server in memory: lists, gets, server-side apply, status and deletion, and what it was asked to write.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http::{Method, Request, Response};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

/// A cluster that remembers what it was told.
#[derive(Clone, Default)]
pub struct Api(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    writes: Vec<String>,
    version: u64,
    /// Requests whose path contains this are answered with an error.
    broken: Option<String>,
}

impl Api {
    pub fn client(&self) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let (code, answer) = api.answer(&parts.method, parts.uri.path(), parts.uri.query(), &body);
                let response = Response::builder().status(code).header("content-type", "application/json");
                Ok::<_, Infallible>(response.body(Body::from(answer.to_string().into_bytes())).unwrap())
            }
        });
        Client::new(service, "default")
    }

    pub fn put(&self, path: &str, object: Value) {
        self.0.lock().unwrap().objects.insert(path.to_owned(), object);
    }

    pub fn get(&self, path: &str) -> Option<Value> {
        self.0.lock().unwrap().objects.get(path).cloned()
    }

    pub fn remove(&self, path: &str) -> Option<Value> {
        self.0.lock().unwrap().objects.remove(path)
    }

    pub fn change(&self, path: &str, pointer: &str, value: Value) {
        let mut state = self.0.lock().unwrap();
        *state.objects.get_mut(path).unwrap().pointer_mut(pointer).unwrap() = value;
    }

    pub fn break_requests(&self, path: Option<&str>) {
        self.0.lock().unwrap().broken = path.map(str::to_owned);
    }

    /// Paths of objects of one plural.
    pub fn paths(&self, plural: &str) -> Vec<String> {
        let middle = format!("/{plural}/");
        self.0.lock().unwrap().objects.keys().filter(|path| path.contains(&middle)).cloned().collect()
    }

    /// What was written since the last call.
    pub fn take_writes(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().writes)
    }

    fn answer(&self, method: &Method, path: &str, query: Option<&str>, body: &[u8]) -> (u16, Value) {
        let mut state = self.0.lock().unwrap();
        if state.broken.as_ref().is_some_and(|broken| path.contains(broken.as_str())) {
            return failure(500, "etcdserver: request timed out");
        }
        if *method != Method::GET {
            state.writes.push(format!("{method} {path}"));
        }
        match *method {
            Method::GET if is_collection(path) => state.list(path, query.unwrap_or_default()),
            Method::GET => match state.objects.get(path) {
                Some(object) => (200, object.clone()),
                None => failure(404, "not found"),
            },
            Method::PATCH => state.apply(path, &serde_json::from_slice(body).unwrap()),
            Method::POST => (201, serde_json::from_slice(body).unwrap()),
            Method::DELETE => match state.objects.remove(path) {
                Some(_) => (200, json!({"kind": "Status", "apiVersion": "v1", "status": "Success"})),
                None => failure(404, "not found"),
            },
            _ => failure(405, "method not allowed"),
        }
    }
}

/// Whether a path names all objects of a kind.
fn is_collection(path: &str) -> bool {
    let after = path.split("/namespaces/").nth(1).unwrap_or_default();
    after.split('/').count() == 2
}

impl State {
    fn list(&self, path: &str, query: &str) -> (u16, Value) {
        let selector = query.split('&').find_map(|pair| pair.strip_prefix("labelSelector=")).unwrap_or_default();
        let selector = selector.replace("%2F", "/").replace("%3D", "=");
        let (key, value) = selector.split_once('=').unwrap_or_default();
        let prefix = format!("{path}/");
        let wanted = |object: &&Value| object["metadata"]["labels"][key] == value;
        let items: Vec<&Value> = self
            .objects
            .iter()
            .filter(|(path, _)| path.starts_with(&prefix))
            .map(|(_, object)| object)
            .filter(wanted)
            .collect();
        (200, json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items}))
    }

    /// Server-side apply as far as one manager sees it: fields are merged, lists are replaced.
    fn apply(&mut self, path: &str, patch: &Value) -> (u16, Value) {
        self.version += 1;
        let (version, target) = (self.version, path.strip_suffix("/status").unwrap_or(path));
        if target != path && !self.objects.contains_key(target) {
            return failure(404, "not found");
        }
        let object = self.objects.entry(target.to_owned()).or_insert_with(|| {
            // What the server adds by itself.
            json!({"metadata": {"uid": format!("uid-{version}"), "creationTimestamp": "2026-01-01T00:00:00Z"}})
        });
        match target == path {
            true => merge(object, patch),
            false => object["status"] = patch["status"].clone(),
        }
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        (200, object.clone())
    }
}

fn merge(object: &mut Value, patch: &Value) {
    match (object, patch) {
        (Value::Object(object), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(object.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (object, patch) => *object = patch.clone(),
    }
}

fn failure(code: u16, message: &str) -> (u16, Value) {
    let reason = if code == 404 { "NotFound" } else { "InternalError" };
    (
        code,
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": reason, "code": code}),
    )
}
