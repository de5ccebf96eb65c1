//! The dimensions of CPU and memory that a quota limits, and pods that ask for one of them alone.

use crate::manifest;
use provisioner::{Quantity, Tenant};
use serde_json::Value;

const MEBIBYTE: i128 = 1 << 20;

/// One thing that a quota limits. Amounts are in the smallest unit that is worth counting: millicores, mebibytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dimension {
    RequestsCpu,
    LimitsCpu,
    RequestsMemory,
    LimitsMemory,
}

impl Dimension {
    /// All four.
    pub(super) const ALL: [Dimension; 4] = [
        Dimension::RequestsCpu,
        Dimension::LimitsCpu,
        Dimension::RequestsMemory,
        Dimension::LimitsMemory,
    ];

    /// Its name in a quota.
    pub(super) fn key(self) -> &'static str {
        match self {
            Dimension::RequestsCpu => "requests.cpu",
            Dimension::LimitsCpu => "limits.cpu",
            Dimension::RequestsMemory => "requests.memory",
            Dimension::LimitsMemory => "limits.memory",
        }
    }

    /// Whether it is about CPU.
    pub(super) fn is_cpu(self) -> bool {
        matches!(self, Dimension::RequestsCpu | Dimension::LimitsCpu)
    }

    fn is_request(self) -> bool {
        matches!(self, Dimension::RequestsCpu | Dimension::RequestsMemory)
    }

    /// What the tenant was promised.
    pub(super) fn promised(self, tenant: &Tenant) -> i128 {
        let quota = &tenant.quota;
        self.units(match self {
            Dimension::RequestsCpu => &quota.requests_cpu,
            Dimension::LimitsCpu => &quota.limits_cpu,
            Dimension::RequestsMemory => &quota.requests_memory,
            Dimension::LimitsMemory => &quota.limits_memory,
        })
    }

    /// A quantity in this dimension's unit, rounded down.
    pub(super) fn units(self, quantity: &Quantity) -> i128 {
        quantity.nanos().div_euclid(self.unit())
    }

    /// The same, rounded up.
    pub(super) fn units_rounded_up(self, quantity: &Quantity) -> i128 {
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
    pub(super) fn write(self, units: i128) -> String {
        if self.is_cpu() {
            format!("{units}m")
        } else {
            format!("{units}Mi")
        }
    }

    /// A pod's resources that ask for so much of this dimension and for next to nothing of the others. A limit is never below its
    /// request, so a request brings its limit along.
    pub(super) fn resources(self, units: i128) -> Value {
        let amount = self.write(units);
        let request = if self.is_request() {
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
