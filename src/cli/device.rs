//! `kinfold device`: the trust list.

use std::net::SocketAddr;

use serde::Serialize;

use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::config::Device;
use crate::config::address;
use crate::model::id::DeviceId;
use crate::model::id::DeviceIdError;

/// Arguments of `kinfold device`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Trust a device; do the same on that device with the id of this one
    Add {
        /// What `kinfold id` prints on that device
        #[arg(value_parser = device_id)]
        id: DeviceId,

        /// What to call it here
        #[arg(long)]
        name: String,

        /// Where to reach it, HOST or HOST:PORT in numbers; may be repeated
        #[arg(long = "address", value_name = "HOST:PORT", value_parser = address::parse_device)]
        addresses: Vec<SocketAddr>,
    },
    /// List the devices that are trusted
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Call a device otherwise
    Rename {
        /// Its name here, or its id
        device: String,

        /// Its new name
        name: String,
    },
    /// Trust a device no longer, and share no folder with it
    Remove {
        /// Its name here, or its id
        device: String,
    },
    /// Say that a device is lost or stolen: it is cut off here, and on all devices that share a folder of yours
    Revoke {
        /// Its name here, or its id
        device: String,
    },
}

/// Runs the command.
pub fn run(context: &Context, command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Add { id, name, addresses } => add(context, Device::new(name, id, addresses))?,
        Command::List { json } => list(context, json)?,
        Command::Rename { device, name } => rename(context, &device, &name)?,
        Command::Remove { device } => remove(context, &device)?,
        Command::Revoke { device } => revoke(context, &device)?,
    }
    Ok(Exit::Done)
}

fn add(context: &Context, device: Device) -> Result<(), Failure> {
    let own = context.own_id()?;
    let changed = context.edit(|edit| Ok(edit.add_device(&own, &device)?))?;
    let what = if changed { "is trusted now" } else { "was trusted already" };
    output::say(format_args!("`{}` {what}", output::escaped(&device.name)))
}

fn list(context: &Context, json: bool) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Row {
        name: String,
        id: String,
        addresses: Vec<SocketAddr>,
    }
    let devices = context.config()?.devices.into_iter();
    let rows: Vec<Row> = devices
        .map(|device| Row { name: device.name, id: device.id.to_string(), addresses: device.addresses })
        .collect();
    if json {
        return output::say_json(&rows);
    }
    let columns: Vec<_> = rows
        .into_iter()
        .map(|row| {
            let addresses: Vec<_> = row.addresses.iter().map(SocketAddr::to_string).collect();
            vec![output::escaped(&row.name), row.id, addresses.join(" ")]
        })
        .collect();
    output::say_columns(&columns)
}

fn rename(context: &Context, device: &str, name: &str) -> Result<(), Failure> {
    context.edit(|edit| Ok(edit.rename_device(device, name)?))?;
    output::say(format_args!("`{}` is called `{}` now", output::escaped(device), output::escaped(name)))
}

fn remove(context: &Context, device: &str) -> Result<(), Failure> {
    let own = context.own_id()?;
    let removed = context.edit(|edit| Ok(edit.remove_device(&own, device)?))?;
    output::say(format_args!("`{}` is trusted no longer", output::escaped(&removed.name)))
}

fn revoke(context: &Context, device: &str) -> Result<(), Failure> {
    let own = context.own_id()?;
    let revoked = context.edit(|edit| Ok(edit.revoke_device(&own, device)?))?;
    let name = revoked.name.unwrap_or_else(|| revoked.id.to_string());
    output::say(format_args!(
        "`{}` is revoked: cut off here, and the other devices are told as they connect. What it holds already it keeps",
        output::escaped(&name)
    ))
}

fn device_id(text: &str) -> Result<DeviceId, DeviceIdError> {
    DeviceId::parse(text)
}
