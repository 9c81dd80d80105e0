//! The Topology as the API server keeps it.
//!
//! The specification stays untyped here: whatever somebody wrote can be received, so that one bad object never stops
//! the watch of the others, and it is judged by the same reader as a file.

use std::borrow::Cow;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use kube::Resource;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub const GROUP: &str = "qkdnet.dev";
pub const VERSION: &str = "v1alpha1";
pub const KIND: &str = "Topology";
pub const PLURAL: &str = "topologies";

/// A Topology object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TopologyObject {
    #[serde(rename = "apiVersion", default)]
    pub api_version: String,
    #[serde(default)]
    pub kind: String,
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<TopologyStatus>,
}

impl Resource for TopologyObject {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        KIND.into()
    }

    fn group((): &()) -> Cow<'_, str> {
        GROUP.into()
    }

    fn version((): &()) -> Cow<'_, str> {
        VERSION.into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        PLURAL.into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// How a Topology stands. Small: a thousand links stay below a megabyte.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopologyStatus {
    /// Generation of the specification that this is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    pub conditions: Vec<Condition>,
    pub sites: i64,
    pub links: i64,
    /// Links over which key flows, of all: `1/2`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub links_flowing: String,
    /// Secret key rate of all links together.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub key_rate: String,
    /// The restore that was carried out last.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub restored: String,
    /// What whoever uses the keys must know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub link_status: Vec<LinkStatus>,
}

/// A figure of a link, for people: `qberZ`, `4.27 %`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FigureStatus {
    pub name: String,
    pub value: String,
}

/// One link, rounded, so that it changes when there is something to say.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LinkStatus {
    pub name: String,
    pub state: String,
    /// The few that say most of this kind of link.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub figures: Vec<FigureStatus>,
    /// The same, from before figures had names.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub qber_z: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub qber_x: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub key_rate: String,
    /// Key bits that both sites share and nobody took yet.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pool: String,
    pub blocks: u64,
}
