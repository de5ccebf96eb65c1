//! Whether a tenant's values agree with each other: requests within limits, and workloads, in the middle of a rollout,
//! within the quota; that there are as many pods as the platform allows, an Ingress object where a host is named for it, and no way
//! out that leads to the nodes' own services. Pure.

use crate::names::Ipv4Range;
use crate::quantity::Quantity;
use crate::tenant::{Egress, Ingress, Tenant, WorkloadSize};

/// A tenant has 1 to 3 workers.
const MOST_WORKERS: u16 = 3;

/// Values of a tenant that contradict each other, or that the platform does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {value} {problem}; {remedy}")]
pub struct InvalidTenant {
    /// The field of the tenant file.
    pub field: String,
    /// Its value.
    pub value: String,
    /// What it contradicts.
    pub problem: String,
    /// What to change.
    pub remedy: &'static str,
}

/// # Errors
/// The first contradiction, in the order of the tenant file.
pub(crate) fn check(tenant: &Tenant) -> Result<(), InvalidTenant> {
    requests_within_limits("containerDefaults", &tenant.container_defaults)?;
    requests_within_limits("api.size", &tenant.api.size)?;
    requests_within_limits("worker.size", &tenant.worker.size)?;
    replicas_allowed("api.replicas", tenant.api.replicas, u16::MAX, "at least 1")?;
    replicas_allowed("worker.replicas", tenant.worker.replicas, MOST_WORKERS, "1 to 3")?;
    let workers = workers(tenant)?;
    host_has_a_class(&tenant.ingress)?;
    for (index, egress) in tenant.egress.iter().enumerate() {
        destination_is_allowed(index, egress)?;
    }
    let quota = &tenant.quota;
    let dimensions: [Dimension<'_>; 4] = [
        (
            "quota.requestsCpu",
            &quota.requests_cpu,
            |size| &size.cpu_request,
            Unit::Cores,
        ),
        (
            "quota.limitsCpu",
            &quota.limits_cpu,
            |size| &size.cpu_limit,
            Unit::Cores,
        ),
        (
            "quota.requestsMemory",
            &quota.requests_memory,
            |size| &size.memory_request,
            Unit::Bytes,
        ),
        (
            "quota.limitsMemory",
            &quota.limits_memory,
            |size| &size.memory_limit,
            Unit::Bytes,
        ),
    ];
    for (field, hard, of, unit) in dimensions {
        let needed = [(tenant.api.replicas, &tenant.api), (workers, &tenant.worker)]
            .into_iter()
            .map(|(replicas, workload)| pods_in_rollout(replicas).saturating_mul(of(&workload.size).nanos()))
            .fold(0, i128::saturating_add);
        if needed > hard.nanos() {
            return Err(too_small(field, hard.as_str(), &unit.show(needed)));
        }
    }
    let pods = pods_in_rollout(tenant.api.replicas) + pods_in_rollout(workers);
    if pods > i128::from(quota.pods) {
        return Err(too_small(
            "quota.pods",
            &quota.pods.to_string(),
            &pods.to_string(),
        ));
    }
    Ok(())
}

/// A limit of the quota: its field and value, and what of a pod counts against it.
type Dimension<'t> = (&'static str, &'t Quantity, fn(&WorkloadSize) -> &Quantity, Unit);

/// The templates roll out with one pod more than wanted.
fn pods_in_rollout(replicas: u16) -> i128 {
    i128::from(replicas) + 1
}

/// How many workers there may be.
fn workers(tenant: &Tenant) -> Result<u16, InvalidTenant> {
    let autoscaling = &tenant.autoscaling;
    let (least, most) = (autoscaling.min_replicas, autoscaling.max_replicas);
    if !autoscaling.enabled {
        return Ok(tenant.worker.replicas);
    }
    replicas_allowed("autoscaling.maxReplicas", most, MOST_WORKERS, "1 to 3")?;
    let invalid = |field: &str, value: String, problem, remedy| {
        Err(InvalidTenant {
            field: field.to_owned(),
            value,
            problem,
            remedy,
        })
    };
    if !(1..=most).contains(&least) {
        let problem = format!("is not 1 to {most}, which maxReplicas is");
        let remedy = "lower it, or raise maxReplicas";
        return invalid("autoscaling.minReplicas", least.to_string(), problem, remedy);
    }
    let (aim, limit) = (&autoscaling.cpu, &tenant.worker.size.cpu_limit);
    if aim.nanos() == 0 || aim >= limit {
        let problem = format!("is not more than 0 and less than worker.size.cpuLimit {limit}");
        let remedy = "aim at less than a worker may use, or there will never be another";
        return invalid("autoscaling.cpu", aim.to_string(), problem, remedy);
    }
    Ok(most)
}

fn replicas_allowed(
    field: &str,
    replicas: u16,
    most: u16,
    allowed: &'static str,
) -> Result<(), InvalidTenant> {
    if (1..=most).contains(&replicas) {
        return Ok(());
    }
    Err(InvalidTenant {
        field: field.to_owned(),
        value: replicas.to_string(),
        problem: format!("is not {allowed}"),
        remedy: "set a number of pods that the platform allows",
    })
}

fn host_has_a_class(ingress: &Ingress) -> Result<(), InvalidTenant> {
    match (&ingress.host, &ingress.class_name) {
        (Some(host), None) => Err(InvalidTenant {
            field: "ingress.host".to_owned(),
            value: host.to_string(),
            problem: "is for an Ingress object, and without ingress.className there is none".to_owned(),
            remedy: "name the class of your ingress controller (kubectl get ingressclasses), or leave the host out",
        }),
        _ => Ok(()),
    }
}

/// Link-local addresses, at which clouds give the credentials of the node they are asked from to any pod on it
/// (<https://kubernetes.io/docs/tasks/administer-cluster/securing-a-cluster/#restricting-cloud-metadata-api-access>).
const METADATA_SERVICE: &str = "169.254.0.0/16";

fn destination_is_allowed(index: usize, egress: &Egress) -> Result<(), InvalidTenant> {
    let reaches = METADATA_SERVICE
        .parse::<Ipv4Range>()
        .is_ok_and(|range| range.overlaps(&egress.cidr));
    if reaches {
        return Err(InvalidTenant {
            field: format!("egress[{index}].cidr"),
            value: egress.cidr.to_string(),
            problem: format!(
                "has addresses of {METADATA_SERVICE}, where a cloud tells the node's credentials"
            ),
            remedy: "name the addresses that the tenant needs, one range each",
        });
    }
    if egress.ports.is_empty() {
        return Err(InvalidTenant {
            field: format!("egress[{index}].ports"),
            value: "[]".to_owned(),
            problem: "names no port, which in a policy would be every port".to_owned(),
            remedy: "name the ports, or leave the destination out",
        });
    }
    Ok(())
}

fn too_small(field: &str, value: &str, needed: &str) -> InvalidTenant {
    InvalidTenant {
        field: field.to_owned(),
        value: value.to_owned(),
        problem: format!(
            "is less than the {needed} that API and worker need with one more pod each in a rollout"
        ),
        remedy: "raise it, or lower replicas or sizes",
    }
}

fn requests_within_limits(field: &str, size: &WorkloadSize) -> Result<(), InvalidTenant> {
    let pairs = [
        ("cpuRequest", &size.cpu_request, "cpuLimit", &size.cpu_limit),
        (
            "memoryRequest",
            &size.memory_request,
            "memoryLimit",
            &size.memory_limit,
        ),
    ];
    match pairs.into_iter().find(|(_, request, _, limit)| request > limit) {
        None => Ok(()),
        Some((name, request, limit_name, limit)) => Err(InvalidTenant {
            field: format!("{field}.{name}"),
            value: request.to_string(),
            problem: format!("is more than {limit_name} {limit}"),
            remedy: "lower the request or raise the limit",
        }),
    }
}

#[derive(Clone, Copy)]
enum Unit {
    Cores,
    Bytes,
}

impl Unit {
    fn show(self, nanos: i128) -> String {
        const WHOLE: i128 = 1_000_000_000;
        match self {
            Self::Cores if nanos % WHOLE == 0 => (nanos / WHOLE).to_string(),
            Self::Cores => format!("{}m", nanos / 1_000_000),
            Self::Bytes if nanos % (WHOLE << 20) == 0 => format!("{}Mi", nanos / (WHOLE << 20)),
            Self::Bytes => (nanos / WHOLE).to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::Protocol;
    use rstest::rstest;

    fn tenant() -> Tenant {
        Tenant::standard("acme".parse().unwrap())
    }

    fn egress(cidr: &str, port: u16) -> Egress {
        Egress {
            cidr: cidr.parse().unwrap(),
            ports: vec![port.try_into().unwrap()],
            protocol: Protocol::Tcp,
        }
    }

    #[test]
    fn destinations_of_one_s_own_are_allowed_also_in_private_networks() {
        let mut tenant = tenant();
        tenant.egress = ["10.20.0.0/16", "192.0.2.10/32", "169.253.0.0/16"]
            .map(|cidr| egress(cidr, 5671))
            .to_vec();
        assert_eq!(check(&tenant), Ok(()));
    }

    #[test]
    fn the_standard_tenant_fits_with_up_to_three_workers() {
        for replicas in 1..=3 {
            let mut tenant = tenant();
            tenant.worker.replicas = replicas;
            assert_eq!(check(&tenant), Ok(()), "{replicas} workers");
        }
    }

    #[rstest]
    #[case::no_api(|t: &mut Tenant| t.api.replicas = 0, "api.replicas 0 is not at least 1")]
    #[case::no_worker(|t: &mut Tenant| t.worker.replicas = 0, "worker.replicas 0 is not 1 to 3")]
    #[case::too_many_workers(|t: &mut Tenant| t.worker.replicas = 4, "worker.replicas 4 is not 1 to 3")]
    #[case::replicas(|t: &mut Tenant| t.api.replicas = 6, "quota.limitsCpu 4 is less than the 4500m")]
    #[case::memory(|t: &mut Tenant| t.worker.size.memory_limit = "4Gi".parse().unwrap(), "quota.limitsMemory 8Gi is less than the 10240Mi")]
    #[case::requests(|t: &mut Tenant| t.quota.requests_cpu = "200m".parse().unwrap(), "quota.requestsCpu 200m is less than the 300m")]
    #[case::autoscaled_beyond_the_platform(|t: &mut Tenant| { t.autoscaling.enabled = true; t.autoscaling.max_replicas = 4; }, "autoscaling.maxReplicas 4 is not 1 to 3")]
    #[case::autoscaled_upside_down(|t: &mut Tenant| { t.autoscaling.enabled = true; t.autoscaling.min_replicas = 3; t.autoscaling.max_replicas = 2; }, "autoscaling.minReplicas 3 is not 1 to 2")]
    #[case::autoscaled_to_nothing(|t: &mut Tenant| { t.autoscaling.enabled = true; t.autoscaling.min_replicas = 0; }, "autoscaling.minReplicas 0 is not 1 to 3")]
    #[case::autoscaled_never(|t: &mut Tenant| { t.autoscaling.enabled = true; t.autoscaling.cpu = "500m".parse().unwrap(); }, "autoscaling.cpu 500m is not more than 0 and less than worker.size.cpuLimit 500m")]
    #[case::autoscaled_beyond_the_quota(|t: &mut Tenant| { t.autoscaling.enabled = true; t.quota.pods = 5; }, "quota.pods 5 is less than the 6 ")]
    #[case::pods(|t: &mut Tenant| t.quota.pods = 3, "quota.pods 3 is less than the 4 ")]
    #[case::host_without_class(|t: &mut Tenant| t.ingress.host = Some("hooks.example.com".parse().unwrap()), "ingress.host hooks.example.com is for an Ingress object")]
    #[case::metadata_service(|t: &mut Tenant| t.egress.push(egress("169.254.169.254/32", 80)), "egress[0].cidr 169.254.169.254/32 has addresses of 169.254.0.0/16")]
    #[case::everything(|t: &mut Tenant| t.egress = vec![egress("192.0.2.0/24", 80), egress("0.0.0.0/0", 80)], "egress[1].cidr 0.0.0.0/0 has addresses of 169.254.0.0/16")]
    #[case::every_port(|t: &mut Tenant| t.egress = vec![Egress { ports: Vec::new(), ..egress("192.0.2.0/24", 80) }], "egress[0].ports [] names no port")]
    #[case::upside_down(|t: &mut Tenant| t.api.size.cpu_request = "1".parse().unwrap(), "api.size.cpuRequest 1 is more than cpuLimit 500m")]
    fn contradictions_are_named(#[case] change: fn(&mut Tenant), #[case] message: &str) {
        let mut tenant = tenant();
        change(&mut tenant);
        let error = check(&tenant).unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
    }
}
