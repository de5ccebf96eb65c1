//! `provisioner list`.

use super::open;
use crate::cli::{ListArgs, OutputFormat};
use crate::console::{self, Log};
use crate::failure::Failure;
use provisioner::list::{self, Standing};
use serde::Serialize;

pub(super) async fn run(args: ListArgs) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Tenants {
        tenants: Vec<Standing>,
    }
    let connection = open(args.cluster).await?;
    let tenants = list::list(&connection.client, &Log::default()).await?;
    match args.output.output {
        OutputFormat::Json => console::document("Tenants", &Tenants { tenants }),
        OutputFormat::Text if tenants.is_empty() => {
            tracing::info!("no tenant is there: no namespace has our labels");
        }
        OutputFormat::Text => console::results(list::table(&tenants, jiff::Timestamp::now())),
    }
    Ok(())
}
