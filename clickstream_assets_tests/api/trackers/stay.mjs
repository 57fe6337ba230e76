// A shopper who stays and clicks every MILLISECONDS: node stay.mjs CHROMIUM ADDRESS MILLISECONDS
// Obeys lines on its standard input: "pause" ends the clicking and prints the ids of all calls, as JSON; "next" opens the
// page again; "close" prints the ids of those that were answered with 200, as JSON, and ends.
import {createInterface} from "node:readline";
import {setTimeout as pause} from "node:timers/promises";
import {chromium} from "playwright-core";

const [executablePath, address, milliseconds] = process.argv.slice(2);
const browser = await chromium.launch({executablePath, args: ["--no-sandbox"]});
const page = await browser.newPage();
const acknowledged = new Set();
page.on("response", (response) => {
  if (response.status() !== 200 || response.request().method() !== "POST") {
    return;
  }
  const sent = response.request().postDataJSON();
  for (const call of sent.batch ?? [sent]) {
    acknowledged.add(call.messageId);
  }
});
await page.goto(address);

let stays = true;
const clicking = (async () => {
  while (stays) {
    await page.click("#P-1");
    await pause(Number(milliseconds));
  }
})();
for await (const line of createInterface({input: process.stdin})) {
  switch (line) {
    case "pause":
      stays = false;
      await clicking;
      console.log(JSON.stringify(await page.evaluate(() => window.called())));
      break;
    case "next":
      await page.reload();
      break;
    case "close":
      console.log(JSON.stringify([...acknowledged]));
      await browser.close();
      process.exit();
  }
}
