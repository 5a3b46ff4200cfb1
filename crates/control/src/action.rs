//! What plans ask for.

use std::fmt;

/// The kinds controllers deal with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Resource {
    /// `Instance`.
    Instance,
    /// `Image`.
    Image,
    /// `Volume`.
    Volume,
    /// `Network`.
    Network,
    /// `Node`.
    Node,
    /// `Event`.
    Event,
}

impl Resource {
    /// All of them.
    pub const ALL: [Resource; 6] = [
        Resource::Instance,
        Resource::Image,
        Resource::Volume,
        Resource::Network,
        Resource::Node,
        Resource::Event,
    ];

    /// The kind's name, as owner references carry it.
    pub fn kind(self) -> &'static str {
        match self {
            Resource::Instance => "Instance",
            Resource::Image => "Image",
            Resource::Volume => "Volume",
            Resource::Network => "Network",
            Resource::Node => "Node",
            Resource::Event => "Event",
        }
    }
}

/// Which object, and which of those that had its name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id {
    /// Its kind.
    pub resource: Resource,
    /// Its namespace, empty for cluster-wide kinds.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid: an action never hits a namesake made later.
    pub uid: String,
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.resource.kind();
        match self.namespace.as_str() {
            "" => write!(f, "{kind} {}", self.name),
            ns => write!(f, "{kind} {ns}/{}", self.name),
        }
    }
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Place an instance that is not placed yet.
    Place {
        /// The instance.
        id: Id,
        /// The node's name.
        node: String,
    },
    /// Say on an instance, by its condition `Scheduled` and an event, that no node can take it.
    Unschedulable {
        /// The instance.
        id: Id,
        /// What it lacks, a sentence.
        message: String,
    },
    /// Delete an object and, in the background, what it owns.
    Delete {
        /// The object.
        id: Id,
    },
    /// Take a finalizer off an object.
    RemoveFinalizer {
        /// The object.
        id: Id,
        /// Which finalizer.
        finalizer: &'static str,
    },
    /// Take an owner off an object.
    RemoveOwner {
        /// The object.
        id: Id,
        /// The owner's uid.
        owner: String,
    },
    /// Forget the store's history up to a revision.
    Compact {
        /// The revision.
        revision: u64,
    },
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Place { id, node } => write!(f, "place {id} on {node}"),
            Action::Unschedulable { id, message } => write!(f, "unschedulable {id}: {message}"),
            Action::Delete { id } => write!(f, "delete {id}"),
            Action::RemoveFinalizer { id, finalizer } => write!(f, "remove finalizer {finalizer} of {id}"),
            Action::RemoveOwner { id, owner } => write!(f, "remove owner {owner} of {id}"),
            Action::Compact { revision } => write!(f, "compact to {revision}"),
        }
    }
}
