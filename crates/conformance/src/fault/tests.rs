use super::*;
use rstest::rstest;

const DENY_B: (&str, &str) = ("tenant-b/40-networkpolicy-default-deny-ingress.delete", "");

/// A directory of faults with one fault `x`.
fn directory(document: &str, files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (path, text) in files.iter().chain([&("fault.yaml", document)]) {
        let path = directory.path().join("x").join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    directory
}

fn one(document: &str, files: &[(&str, &str)]) -> Result<Fault, SettingsError> {
    read(directory(document, files).path()).map(|mut faults| faults.remove(0))
}

#[test]
fn the_faults_that_come_with_the_binary_are_those_of_the_directory() {
    let names = |faults: Vec<Fault>| {
        faults
            .into_iter()
            .map(|fault| (fault.name, fault.templates))
            .collect::<BTreeMap<_, _>>()
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/faults");
    let on_disk = names(read(&root).unwrap());
    let embedded = names(embedded().unwrap());
    assert_eq!(
        embedded.keys().collect::<Vec<_>>(),
        on_disk.keys().collect::<Vec<_>>()
    );
    for (name, templates) in &embedded {
        let sources = |templates: &BTreeMap<TenantId, Templates>| {
            let all = templates.values().flat_map(Templates::in_order);
            all.map(|template| template.source.clone()).collect::<Vec<_>>()
        };
        assert_eq!(sources(templates), sources(&on_disk[name]), "{name}");
    }
}

/// A check that no fault turns red may be blind, and nobody would notice.
#[test]
fn every_check_has_a_fault() {
    let faults = embedded().unwrap();
    for check in check::ALL {
        let id = check.info().id;
        // What shows that the probes can see never fails: it leaves the run undecided.
        let undecided = id == check::sen_01::ID;
        let names_it = |fault: &Fault| {
            let expected = &fault.expected;
            let items = if undecided {
                &expected.inconclusive
            } else {
                &expected.failed
            };
            items.iter().any(|item| item.split(' ').next() == Some(id))
        };
        assert!(
            faults.iter().any(names_it),
            "no fault makes {id} fail: add a directory below fixtures/faults whose fault.yaml names it (docs/selftest.md)"
        );
    }
}

#[test]
fn there_are_harmless_changes() {
    assert!(embedded().unwrap().iter().any(|fault| fault.expected.is_empty()));
}

#[test]
fn tenants_are_named_after_the_fault_and_know_each_other() {
    let policy = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: x\n  namespace: \"{{NAMESPACE}}\"\ndata: {id: \"@A@ @B@\", namespace: \"@NEIGHBOUR@\"}\n";
    let fault = one("{breaks: nothing}", &[("tenant-a/extra.yaml.hbs", policy)]).unwrap();
    let [a, b] = fault.tenants.each_ref().map(TenantId::as_str);
    assert_eq!((a, b), ("x-a", "x-b"));
    let templates = &fault.templates[&fault.tenants[0]];
    let source = &templates
        .in_order()
        .into_iter()
        .find(|template| template.name == "extra")
        .unwrap()
        .source;
    assert!(
        source.contains("id: \"x-a x-b\", namespace: \"ai-agents-x-b\""),
        "{source}"
    );
}

#[test]
fn what_carries_a_finalizer_is_known() {
    let object = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: stays\n  namespace: \"{{NAMESPACE}}\"\n  finalizers: [example.com/nobody]\n";
    let fault = one(
        "{breaks: hygiene, failed: [PROV-14 cluster]}",
        &[("tenant-a/extra.yaml.hbs", object)],
    )
    .unwrap();
    let held: Vec<String> = fault
        .held
        .iter()
        .map(|manifest| manifest.reference().to_string())
        .collect();
    assert_eq!(held, ["ConfigMap stays in ai-agents-x-a"]);
}

#[test]
fn a_namespace_may_stand_beside_the_tenants() {
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: \"@BESIDE@\"}\n";
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m, namespace: \"@BESIDE@\"}\n";
    let fault = one(
        "{breaks: nothing}",
        &[("beside/1.yaml", namespace), ("beside/2.yaml", map)],
    )
    .unwrap();
    assert_eq!(fault.beside[1]["metadata"]["namespace"], "beside-x");
}

#[rstest]
#[case::no_yaml("breaks", &[DENY_B], "fault.yaml", "invalid type")]
#[case::unknown_field("{breaks: x, fails: []}", &[DENY_B], "fault.yaml", "unknown field `fails`")]
#[case::says_nothing("{breaks: ' '}", &[DENY_B], "fault.yaml", "breaks: says nothing")]
#[case::unknown_check("{breaks: x, failed: [NET-99 a]}", &[DENY_B], "fault.yaml", "there is no check \"NET-99\"")]
#[case::lower_case("{breaks: x, failed: [net-01 cluster]}", &[DENY_B], "fault.yaml", "there is no check \"net-01\"")]
#[case::no_subject("{breaks: x, failed: [NET-01]}", &[DENY_B], "fault.yaml", "is no item of NET-01")]
#[case::subject_of_another_check("{breaks: x, failed: [QUO-01 a -> b]}", &[DENY_B], "fault.yaml", "\"QUO-01 a -> b\" is no item of QUO-01")]
#[case::both("{breaks: x, failed: [QUO-01 a], inconclusive: [QUO-01 a]}", &[DENY_B], "fault.yaml", "expected to fail and to be inconclusive")]
#[case::plants_nothing("{breaks: x}", &[], "x", "plants nothing")]
#[case::changes_nothing("{breaks: x}", &[("tenant-a/README.md", "why")], "x", "plants nothing")]
#[case::state_and_files("{breaks: x, cluster: cni-none}", &[DENY_B], "fault.yaml", "there is something to plant beside it")]
#[case::no_such_template("{breaks: x}", &[("tenant-a/networkpolicies.delete", "")], "x", "removes a template that does not exist; there are: namespace")]
#[case::misspelt_override("{breaks: x}", &[("tenant-a/50-configmaps.yaml.hbs", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ai-agents-config, namespace: \"{{NAMESPACE}}\"}\n")], "x", "and so does")]
#[case::no_such_variable("{breaks: x}", &[("tenant-a/50-configmap.yaml.hbs", "{{TENANT}}")], "x", "variable TENANT does not exist")]
#[case::cluster_scoped("{breaks: x}", &[("tenant-a/r.yaml.hbs", "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: r}\n")], "x", "makes kind \"ClusterRole\"")]
#[case::another_directory("{breaks: x}", &[("tenant-c/a.delete", "")], "a.delete", "is no part of a fault")]
#[case::deeper("{breaks: x}", &[("tenant-a/more/a.delete", "")], "a.delete", "is no part of a fault")]
#[case::of_no_tenant("{breaks: x}", &[("by-hand/a.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m, namespace: kube-system}\n")], "a.yaml", "makes ConfigMap m in namespace kube-system")]
#[case::namespace_of_no_tenant("{breaks: x}", &[("by-hand/a.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: kube-system}\n")], "a.yaml", "makes Namespace kube-system in namespace none")]
#[case::cluster_wide_by_hand("{breaks: x}", &[("by-hand/a.yaml", "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: r}\n")], "a.yaml", "makes ClusterRole of rbac.authorization.k8s.io/v1")]
#[case::nameless_by_hand("{breaks: x}", &[("by-hand/a.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {namespace: \"ai-agents-@A@\"}\n")], "a.yaml", "makes ConfigMap without a name in namespace ai-agents-x-a")]
#[case::no_namespace_beside("{breaks: x}", &[("beside/a.yaml", "kind: ConfigMap\nmetadata: {name: m, namespace: \"@BESIDE@\"}\n")], "a.yaml", "makes ConfigMap m in namespace beside-x")]
#[case::another_name_beside("{breaks: x}", &[("beside/a.yaml", "kind: Namespace\nmetadata: {name: kube-system}\n")], "a.yaml", "makes Namespace kube-system")]
fn a_fault_that_cannot_be_what_it_says_is_refused(
    #[case] document: &str,
    #[case] files: &[(&str, &str)],
    #[case] place: &str,
    #[case] problem: &str,
) {
    let error = one(document, files).unwrap_err();
    assert!(error.problem.contains(problem), "{error}");
    assert!(error.place.ends_with(place), "{error}");
    assert!(!error.hint.is_empty());
}

#[test]
fn an_empty_directory_is_refused() {
    let directory = directory("{breaks: x}", &[DENY_B]);
    std::fs::create_dir(directory.path().join("x/tenant-a")).unwrap();
    let error = read(directory.path()).unwrap_err();
    assert!(
        error.place.ends_with("x/tenant-a") && error.problem.contains("empty directory"),
        "{error}"
    );
}

#[test]
fn a_directory_without_fault_yaml_and_one_without_faults_are_refused() {
    let directory = directory("{breaks: x}", &[DENY_B]);
    std::fs::remove_file(directory.path().join("x/fault.yaml")).unwrap();
    assert!(
        read(directory.path())
            .unwrap_err()
            .to_string()
            .contains("x/fault.yaml: does not exist")
    );
    assert!(
        read(&directory.path().join("y"))
            .unwrap_err()
            .problem
            .contains("cannot be read")
    );
}

#[test]
fn a_name_that_is_too_long_for_a_tenant_is_refused() {
    let name = "x".repeat(52);
    let root = Path::new("faults");
    let files = Files::from([(root.join(&name).join("fault.yaml"), "{breaks: x}".to_owned())]);
    let error = all(root, files).unwrap_err();
    assert!(
        error.problem.contains("cannot name the fault's tenants"),
        "{error}"
    );
}

#[test]
fn a_fault_is_chosen_by_its_name_and_by_no_other() {
    let names = |only: &[&str]| {
        let only: Vec<String> = only.iter().map(|name| (*name).to_owned()).collect();
        let chosen = choose(embedded().unwrap(), &only);
        chosen.map(|faults| faults.into_iter().map(|fault| fault.name).collect::<Vec<_>>())
    };
    assert_eq!(names(&["quota-missing"]).unwrap(), ["quota-missing"]);
    assert_eq!(names(&[]).unwrap().len(), embedded().unwrap().len());
    assert!(names(&["quota"]).unwrap_err().hint.contains("quota-missing"));
}
