//! An event publisher of one's own: what happens to users goes to a topic exchange of RabbitMQ.
//!
//! `events_to_rabbitmq amqp://127.0.0.1:5672/%2f` lets somebody sign up and in, and prints what a consumer is told. The
//! broker may be down meanwhile: events wait in the store until it takes them, of one user in order.
#![expect(clippy::print_stdout, reason = "a program for a terminal")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions,
    QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind};
use time::format_description::well_known::Rfc3339;
use tokio::sync::Mutex;
use usermgr_core::domain::event::Event;
use usermgr_core::flow::register::Register;
use usermgr_core::flow::verify_email::Verify;
use usermgr_core::port::events::{EventPublisher, PublishError};
use usermgr_core::testing::{Mailbox, MemoryStore};
use usermgr_core::{ClientContext, Password, SecretKey, UserManager};

const EXCHANGE: &str = "usermgr";
const PERSISTENT: u8 = 2;
const EMAIL: &str = "ana@example.org";
const PASSWORD: &str = "correct horse battery";

/// Publishes each event under its name as the routing key, and waits until the broker has it.
#[derive(Debug)]
struct RabbitMq {
    url: String,
    /// Opened when it is needed, and anew after a failure.
    channel: Mutex<Option<Channel>>,
}

impl RabbitMq {
    fn new(url: &str) -> Self {
        Self { url: url.to_owned(), channel: Mutex::new(None) }
    }

    async fn open(&self) -> Result<Channel, PublishError> {
        let mut kept = self.channel.lock().await;
        if let Some(channel) = kept.as_ref().filter(|channel| channel.status().connected()) {
            return Ok(channel.clone());
        }
        let connection = Connection::connect(&self.url, ConnectionProperties::default())
            .await
            .map_err(PublishError::new)?;
        let channel = connection.create_channel().await.map_err(PublishError::new)?;
        declare(&channel).await.map_err(PublishError::new)?;
        channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(PublishError::new)?;
        Ok(kept.insert(channel).clone())
    }
}

#[async_trait]
impl EventPublisher for RabbitMq {
    async fn publish(&self, event: &Event) -> Result<(), PublishError> {
        let channel = self.open().await?;
        let body = serde_json::json!({
            "id": event.id,
            "position": event.position,
            "type": event.kind.as_str(),
            "at": event.at.format(&Rfc3339).map_err(PublishError::new)?,
            "user_id": event.user_id,
        });
        let properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_delivery_mode(PERSISTENT)
            .with_message_id(event.id.to_string().into());
        let confirmed = channel
            .basic_publish(
                EXCHANGE.into(),
                event.kind.as_str().into(),
                BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() },
                body.to_string().as_bytes(),
                properties,
            )
            .await
            .map_err(PublishError::new)?
            .await
            .map_err(PublishError::new)?;
        // An event counts as published when the broker says that it has it, and a queue to put it in.
        let is_taken = confirmed.is_ack() && confirmed.take_message().is_none();
        if is_taken { Ok(()) } else { Err(PublishError::new("the broker did not take it")) }
    }
}

async fn declare(channel: &Channel) -> Result<(), lapin::Error> {
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare(EXCHANGE.into(), ExchangeKind::Topic, options, FieldTable::default()).await
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).ok_or("usage: events_to_rabbitmq AMQP_URL")?;
    let mailbox = Arc::new(Mailbox::default());
    let users = UserManager::builder()
        .store(Arc::new(MemoryStore::default()))
        .mailer(mailbox.clone())
        .events(Arc::new(RabbitMq::new(&url)))
        .secret_key(SecretKey::from_base64("q5X0mKkXn0bAq1dVQH3nYx4oF8o2m2eS0cVqz8m1T3k=")?)
        .build()?;

    let client = ClientContext::new();
    users.registration().register(Register::new(EMAIL, PASSWORD), &client).await?;
    users.mail_worker().run_once().await?;
    let code = mailbox.last_code(EMAIL).ok_or("no mail")?;
    users.registration().verify(Verify::new(EMAIL, code), &client).await?;
    users.sessions().login(EMAIL, &Password::new(PASSWORD), &client).await?;
    println!("signed in as {EMAIL}");

    let workers = users.start_workers();
    let channel = loop {
        match consumer(&url).await {
            Ok(channel) => break channel,
            Err(error) => println!("waiting for the broker: {error}"),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    let mut deliveries = channel
        .basic_consume("app".into(), "example".into(), BasicConsumeOptions::default(), FieldTable::default())
        .await?;
    while let Some(delivery) = deliveries.next().await {
        let delivery = delivery?;
        println!("{}: {}", delivery.routing_key, String::from_utf8_lossy(&delivery.data));
        delivery.ack(BasicAckOptions::default()).await?;
        if delivery.routing_key.as_str() == "signed_in" {
            break;
        }
    }
    workers.stop().await;
    Ok(())
}

/// A consumer's side: a durable queue that is bound to every event.
async fn consumer(url: &str) -> Result<Channel, lapin::Error> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    declare(&channel).await?;
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare("app".into(), options, FieldTable::default()).await?;
    let bind = QueueBindOptions::default();
    channel.queue_bind("app".into(), EXCHANGE.into(), "#".into(), bind, FieldTable::default()).await?;
    Ok(channel)
}
