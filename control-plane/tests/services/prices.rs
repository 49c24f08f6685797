//! Price entries and imports over a real socket.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failure here is a failure of the test")]

use prost_types::FieldMask;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use trunkline_proto::{
    admin::v1::{
        AcceptPriceEntryRequest, ApplyConfigRequest, Config, CreatePriceEntryRequest,
        DeleteDeploymentRequest, DeletePriceEntryRequest, ExportConfigRequest, GetPriceEntryRequest,
        ImportPricesRequest, ListPriceEntriesRequest, PriceFeedFormat, RollbackConfigRequest,
        UpdatePriceEntryRequest,
    },
    types::v1::{Price, PriceEntry, PriceSource},
};

use crate::support::{DOCUMENT, Plane, apply, config};

#[expect(clippy::unnecessary_wraps, reason = "as the fields want it")]
fn price(input: &str, output: &str) -> Option<Price> {
    Some(Price { input_usd_per_mtok: input.into(), output_usd_per_mtok: output.into(), ..Price::default() })
}

fn entry(name: &str, deployment: &str, input: &str) -> PriceEntry {
    PriceEntry {
        name: name.into(),
        deployment: deployment.into(),
        price: price(input, "2"),
        ..PriceEntry::default()
    }
}

fn create(entry: PriceEntry) -> CreatePriceEntryRequest {
    CreatePriceEntryRequest { price_entry: Some(entry), ..Default::default() }
}

fn litellm(input: &str) -> ImportPricesRequest {
    let data = format!(r#"{{"small": {{"input_cost_per_token": {input}, "output_cost_per_token": 2e-6}}}}"#);
    ImportPricesRequest {
        format: PriceFeedFormat::Litellm.into(),
        data: data.into_bytes(),
        ..Default::default()
    }
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().expect("every error has an ErrorInfo").reason
}

async fn all(plane: &mut Plane) -> Vec<PriceEntry> {
    let listed = plane.admin.list_price_entries(ListPriceEntriesRequest::default()).await.unwrap();
    listed.into_inner().price_entries
}

async fn exported(plane: &mut Plane) -> Config {
    plane.admin.export_config(ExportConfigRequest {}).await.unwrap().into_inner().config.unwrap()
}

#[tokio::test]
async fn an_entry_is_created_changed_listed_and_deleted() {
    let mut plane = Plane::configured().await;
    let created = plane.admin.create_price_entry(create(entry("autumn", "one/small", "3"))).await.unwrap();
    let created = created.into_inner();
    assert_eq!((created.version.unwrap().revision, created.changes.len()), (2, 1));
    let stored = created.price_entry.unwrap();
    let again = plane.admin.create_price_entry(create(entry("autumn", "one/small", "3"))).await.unwrap_err();
    assert_eq!(again.code(), Code::AlreadyExists);

    let update = UpdatePriceEntryRequest {
        price_entry: Some(PriceEntry { price: price("4", "5"), ..stored.clone() }),
        update_mask: Some(FieldMask { paths: vec!["price.input_usd_per_mtok".into()] }),
        ..Default::default()
    };
    let updated = plane.admin.update_price_entry(update.clone()).await.unwrap().into_inner();
    let updated = updated.price_entry.unwrap();
    assert_eq!(updated.price, price("4", "2"), "what the mask names");
    let stale = plane.admin.update_price_entry(update).await.unwrap_err();
    assert_eq!((stale.code(), reason(&stale).as_str()), (Code::Aborted, "ETAG_MISMATCH"));

    for number in 0..3 {
        let one = entry(&format!("p-{number}"), "two/small", "1");
        let at = prost_types::Timestamp { seconds: 1_800_000_000 + number, nanos: 0 };
        let one = PriceEntry { valid_from: Some(at), ..one };
        plane.admin.create_price_entry(create(one)).await.unwrap();
    }
    let page = ListPriceEntriesRequest { page_size: 2, deployment: "two/small".into(), ..Default::default() };
    let first = plane.admin.list_price_entries(page.clone()).await.unwrap().into_inner();
    let page = ListPriceEntriesRequest { page_token: first.next_page_token, ..page };
    let second = plane.admin.list_price_entries(page).await.unwrap().into_inner();
    let names: Vec<_> =
        first.price_entries.iter().chain(&second.price_entries).map(|one| &*one.name).collect();
    assert_eq!((names, second.next_page_token.as_str()), (vec!["p-0", "p-1", "p-2"], ""));

    let delete = DeletePriceEntryRequest { name: "autumn".into(), etag: updated.etag, ..Default::default() };
    plane.admin.delete_price_entry(delete).await.unwrap();
    let gone = plane.admin.get_price_entry(GetPriceEntryRequest { name: "autumn".into() }).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    plane.stop().await;
}

#[tokio::test]
async fn what_is_wrong_with_an_entry_is_named_and_changes_nothing() {
    let mut plane = Plane::configured().await;
    for (wrong, field) in [
        (entry("Bad", "one/small", "1"), "price_entry.name"),
        (entry("p", "one/none", "1"), "price_entry.deployment"),
        (entry("p", "one/small", "-1"), "price_entry.price.input_usd_per_mtok"),
        (PriceEntry { price: None, ..entry("p", "one/small", "1") }, "price_entry.price"),
        (
            PriceEntry { source: PriceSource::Feed.into(), ..entry("p", "one/small", "1") },
            "price_entry.source",
        ),
    ] {
        let error = plane.admin.create_price_entry(create(wrong)).await.unwrap_err();
        let violations = error.get_details_bad_request().unwrap().field_violations;
        assert_eq!((error.code(), violations[0].field.as_str()), (Code::InvalidArgument, field));
    }
    let checked = CreatePriceEntryRequest { validate_only: true, ..create(entry("p", "one/small", "1")) };
    let checked = plane.admin.create_price_entry(checked).await.unwrap().into_inner();
    assert_eq!(checked.changes[0].path, "price_entries[p]");
    assert_eq!(all(&mut plane).await, []);
    plane.stop().await;
}

#[tokio::test]
async fn a_request_that_is_sent_again_makes_no_second_entry() {
    let mut plane = Plane::configured().await;
    let request = CreatePriceEntryRequest {
        request_id: "0b7f3c1e-7f0f-4a53-9f6a-1f5a3f1a9d11".into(),
        ..create(entry("p", "one/small", "3"))
    };
    let first = plane.admin.create_price_entry(request.clone()).await.unwrap().into_inner();
    let second = plane.admin.create_price_entry(request).await.unwrap().into_inner();
    assert_eq!(first, second);
    plane.stop().await;
}

#[tokio::test]
async fn a_deployment_with_an_operators_price_entry_is_in_use() {
    let mut plane = Plane::configured().await;
    plane.admin.create_price_entry(create(entry("p", "one/large", "3"))).await.unwrap();
    let delete = DeleteDeploymentRequest { name: "one/large".into(), ..Default::default() };
    let refused = plane.admin.delete_deployment(delete.clone()).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "IN_USE"));
    assert!(refused.message().contains("price entries p"), "{}", refused.message());
    let entry = DeletePriceEntryRequest { name: "p".into(), ..Default::default() };
    plane.admin.delete_price_entry(entry).await.unwrap();
    plane.admin.delete_deployment(delete).await.unwrap();
    plane.stop().await;
}

#[tokio::test]
async fn imported_prices_are_state_that_documents_leave_alone() {
    let directory = tempfile::tempdir().unwrap();
    let mut plane = Plane::on_disk(directory.path()).await;
    plane.admin.apply_config(apply(config(DOCUMENT))).await.unwrap();
    let dry = ImportPricesRequest { validate_only: true, ..litellm("1.5e-6") };
    let dry = plane.admin.import_prices(dry).await.unwrap().into_inner();
    assert_eq!((dry.models, dry.changes.len(), dry.unmatched), (1, 2, vec!["one/large".to_owned()]));
    assert_eq!(all(&mut plane).await, []);

    let done = plane.admin.import_prices(litellm("1.5e-6")).await.unwrap().into_inner();
    assert_eq!((done.version.unwrap().revision, done.held), (2, vec![]));
    let entries = all(&mut plane).await;
    let deployments: Vec<_> = entries.iter().map(|one| one.deployment.as_str()).collect();
    assert_eq!(deployments, ["one/small", "two/small"]);
    assert_eq!((entries[0].source(), entries[0].price.clone()), (PriceSource::Feed, price("1.5", "2")));

    // Not in the document, and no document removes them.
    let document = exported(&mut plane).await;
    assert_eq!(document.price_entries, []);
    let applied = ApplyConfigRequest { base_revision: 1, ..apply(document.clone()) };
    let applied = plane.admin.apply_config(applied).await.unwrap().into_inner();
    assert_eq!((applied.version.unwrap().revision, applied.changes), (2, vec![]));
    let back = RollbackConfigRequest { revision: 1, ..Default::default() };
    plane.admin.rollback_config(back).await.unwrap();
    assert_eq!(all(&mut plane).await, entries);
    let mut forged = document;
    forged.price_entries = entries.clone();
    let forged = plane.admin.apply_config(apply(forged)).await.unwrap_err();
    let violations = forged.get_details_bad_request().unwrap().field_violations;
    assert_eq!(violations[0].field, "price_entries[0].source");

    // Durable, and gone with their deployment.
    plane.stop().await;
    let mut plane = Plane::on_disk(directory.path()).await;
    assert_eq!(all(&mut plane).await, entries);
    let mut smaller = config(DOCUMENT);
    smaller.providers.remove(1);
    smaller.virtual_models[0].tiers[0].targets.remove(1);
    plane.admin.apply_config(apply(smaller)).await.unwrap();
    assert_eq!(all(&mut plane).await, entries[..1]);
    plane.stop().await;
}

#[tokio::test]
async fn a_price_that_jumps_is_held_back_until_it_is_accepted() {
    let mut plane = Plane::configured().await;
    // The document says 1.
    let done = plane.admin.import_prices(litellm("9e-6")).await.unwrap().into_inner();
    let held: Vec<_> = done.held.iter().map(|one| (one.deployment.as_str(), one.held.as_str())).collect();
    assert_eq!(held, [("one/small", "the input price goes from 1 to 9")]);
    let again = plane.admin.import_prices(litellm("9e-6")).await.unwrap().into_inner();
    assert_eq!(again.changes, [], "held back once");

    let name = done.held[0].name.clone();
    let update = UpdatePriceEntryRequest { price_entry: Some(done.held[0].clone()), ..Default::default() };
    let refused = plane.admin.update_price_entry(update).await.unwrap_err();
    assert_eq!(reason(&refused), "FROM_FEED");
    let accept = AcceptPriceEntryRequest { name, ..Default::default() };
    let accepted = plane.admin.accept_price_entry(accept.clone()).await.unwrap().into_inner();
    assert_eq!(accepted.price_entry.unwrap().held, "");
    let refused = plane.admin.accept_price_entry(accept).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "NOT_HELD"));

    let wanted = ImportPricesRequest { accept_held: true, ..litellm("0") };
    let taken = plane.admin.import_prices(wanted).await.unwrap().into_inner();
    assert_eq!(taken.held, []);
    plane.stop().await;
}

#[tokio::test]
async fn a_file_that_is_no_price_list_is_refused_whole() {
    let mut plane = Plane::configured().await;
    let with = |data: &[u8]| ImportPricesRequest { data: data.to_vec(), ..litellm("1e-6") };
    for (request, field) in [
        (with(b"not json"), "data"),
        (with(b"[]"), "data"),
        (with(b"{}"), "data"),
        (with(br#"{"data": [{"id": "x", "pricing": {"prompt": "1", "completion": "1"}}]}"#), "data"),
        (ImportPricesRequest { format: 0, ..litellm("1e-6") }, "format"),
        (
            ImportPricesRequest { models: [("small".into(), "gone".into())].into(), ..litellm("1e-6") },
            "models",
        ),
    ] {
        let error = plane.admin.import_prices(request).await.unwrap_err();
        let violations = error.get_details_bad_request().unwrap().field_violations;
        assert_eq!((error.code(), violations[0].field.as_str()), (Code::InvalidArgument, field));
    }
    let named = [("one/large".to_owned(), "small".to_owned()), ("small".to_owned(), String::new())];
    let named = ImportPricesRequest { models: named.into(), ..litellm("1e-6") };
    plane.admin.import_prices(named).await.unwrap();
    let deployments: Vec<_> = all(&mut plane).await.into_iter().map(|one| one.deployment).collect();
    assert_eq!(deployments, ["one/large"], "as named, and the rest left out");
    plane.stop().await;
}
