// Debian's Firefox, driven over WebDriver BiDi.

import puppeteer from "puppeteer-core";

/** The tone of the fake microphone. */
export const HERTZ = 880;

const PREFERENCES = {
  // Fake devices, which nobody is asked about.
  "media.navigator.streams.fake": true,
  "media.navigator.audio.fake_frequency": HERTZ,
  "media.navigator.permission.disabled": true,
  // A page that may use camera and microphone may know all addresses, and only so Firefox takes
  // loopback ones. In a call it always may.
  "permissions.default.camera": 1,
  "permissions.default.microphone": 1,
  "media.peerconnection.ice.loopback": true,
  "media.autoplay.default": 0,
};

/**
 * Headless Firefox, whose every page is its own machine. On a machine without sound its audio
 * contexts never start, so nothing in its pages can make or measure tones; it plays what it
 * receives all the same, and counts its energy.
 */
export class Firefox {
  constructor(browser) {
    this.browser = browser;
  }

  static async open() {
    return new Firefox(await puppeteer.launch({
      browser: "firefox",
      executablePath: process.env.FIREFOX ?? "/usr/bin/firefox-esr",
      headless: true,
      // The size comes from the command line: Firefox ESR lacks the command that sets it later.
      defaultViewport: null,
      args: ["--width=1400", "--height=900"],
      extraPrefsFirefox: PREFERENCES,
    }));
  }

  async page() {
    const context = await this.browser.createBrowserContext();
    return { page: await context.newPage(), close: () => context.close() };
  }

  close() {
    return this.browser.close();
  }
}
