//! The dimensions that a quota limits, and objects that ask for one of them alone.

use crate::manifest::{self, Mark};
use provisioner::{Quantity, Tenant};
use serde_json::Value;

const MEBIBYTE: i128 = 1 << 20;

/// One thing that a quota limits. Amounts are in the smallest unit that is worth counting: millicores, mebibytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dimension {
    /// `requests.cpu`
    RequestsCpu,
    /// `limits.cpu`
    LimitsCpu,
    /// `requests.memory`
    RequestsMemory,
    /// `limits.memory`
    LimitsMemory,
    /// `requests.storage`
    RequestsStorage,
}

impl Dimension {
    /// Those of a pod's containers.
    pub const COMPUTE: [Dimension; 4] = [
        Dimension::RequestsCpu,
        Dimension::LimitsCpu,
        Dimension::RequestsMemory,
        Dimension::LimitsMemory,
    ];

    /// All of them.
    pub const ALL: [Dimension; 5] = [
        Dimension::RequestsCpu,
        Dimension::LimitsCpu,
        Dimension::RequestsMemory,
        Dimension::LimitsMemory,
        Dimension::RequestsStorage,
    ];

    /// Its name in a quota.
    pub fn key(self) -> &'static str {
        match self {
            Dimension::RequestsCpu => "requests.cpu",
            Dimension::LimitsCpu => "limits.cpu",
            Dimension::RequestsMemory => "requests.memory",
            Dimension::LimitsMemory => "limits.memory",
            Dimension::RequestsStorage => "requests.storage",
        }
    }

    /// Whether it is about CPU.
    pub fn is_cpu(self) -> bool {
        matches!(self, Dimension::RequestsCpu | Dimension::LimitsCpu)
    }

    /// The limit that a request of it brings along, since a container's limit is never below its request.
    pub fn limit(self) -> Option<Dimension> {
        match self {
            Dimension::RequestsCpu => Some(Dimension::LimitsCpu),
            Dimension::RequestsMemory => Some(Dimension::LimitsMemory),
            Dimension::LimitsCpu | Dimension::LimitsMemory | Dimension::RequestsStorage => None,
        }
    }

    /// What the tenant was promised.
    pub fn promised(self, tenant: &Tenant) -> i128 {
        let quota = &tenant.quota;
        self.units(match self {
            Dimension::RequestsCpu => &quota.requests_cpu,
            Dimension::LimitsCpu => &quota.limits_cpu,
            Dimension::RequestsMemory => &quota.requests_memory,
            Dimension::LimitsMemory => &quota.limits_memory,
            Dimension::RequestsStorage => &quota.requests_storage,
        })
    }

    /// A quantity in this dimension's unit, rounded down.
    pub fn units(self, quantity: &Quantity) -> i128 {
        quantity.nanos().div_euclid(self.unit())
    }

    /// The same, rounded up.
    pub fn units_rounded_up(self, quantity: &Quantity) -> i128 {
        (quantity.nanos() + self.unit() - 1).div_euclid(self.unit())
    }

    /// One of its units in nanos: a millicore, a mebibyte.
    fn unit(self) -> i128 {
        if self.is_cpu() {
            1_000_000
        } else {
            1_000_000_000 * MEBIBYTE
        }
    }

    /// An amount as Kubernetes writes it.
    pub fn write(self, units: i128) -> String {
        if self.is_cpu() {
            format!("{units}m")
        } else {
            format!("{units}Mi")
        }
    }

    /// What asks for it, for people.
    pub fn asker(self) -> &'static str {
        match self {
            Dimension::RequestsStorage => "PersistentVolumeClaim",
            _ => "pod",
        }
    }

    /// An object of the tenant's that asks for so much of this dimension and for next to nothing of the others, and complies with
    /// everything else.
    pub fn object(self, units: i128, tenant: &Tenant, mark: &Mark, image: &str) -> Value {
        let (name, namespace) = (mark.run.object("dry-run"), tenant.namespace());
        match self {
            Dimension::RequestsStorage => manifest::claim(mark, &name, &namespace, &self.write(units)),
            _ => manifest::inert_pod(mark, &name, &namespace, image, &self.resources(units)),
        }
    }

    /// A pod's resources that ask for so much of this dimension and for next to nothing of the others. A limit is never below its
    /// request, so a request brings its limit along.
    pub fn resources(self, units: i128) -> Value {
        let amount = self.write(units);
        let request = if self.limit().is_some() {
            amount.clone()
        } else {
            self.write(1)
        };
        if self.is_cpu() {
            manifest::resources(&request, &amount, "1Mi", "1Mi")
        } else {
            manifest::resources("1m", "1m", &request, &amount)
        }
    }
}
