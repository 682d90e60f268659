"""A secret of every shape that scrubbing knows, made up by hand. In pieces, so that no scanner takes this file for a leak."""

from __future__ import annotations

import base64

__all__ = ["ALNUM", "B64", "HEX", "SECRETS"]

ALNUM = "Qm7xT2vLp9Rk4WzN8sBdYh3JcF6gUe5aXo1iKtMrVnZb0qDw"  # 48 letters and digits, no 8 of them twice
HEX = "4f3b2a1c9d8e7f605142738495a6b7c8"  # 32 hexadecimal digits
B64 = "Zk8/wQ2+Rt7YbN4xLm9/PvC3sJdK5hGfT6uXaE1o"  # 40 characters of base64
JWT_HEAD = "eyJhbGciOiJIUzI1NiJ9"  # {"alg":"HS256"}
JWT_CLAIMS = "eyJzdWIiOiI0MiJ9"  # {"sub":"42"}

SECRETS = [
    ("Anthropic key", "sk-" + "ant-api03-", ALNUM[:8], ""),
    ("Anthropic key", "sk-" + "ant-api03-", ALNUM + "-_" + ALNUM[:20] + "AA", ""),
    ("Anthropic key", "sk-" + "ant-admin01-", ALNUM, ""),
    ("Anthropic key", "sk-" + "ant-oat01-", ALNUM, ""),
    ("Anthropic key", "sk-" + "ant-sid01-", ALNUM, ""),
    ("Anthropic key", "sk-" + "ant-", ALNUM[:32], ""),
    ("OpenAI key", "sk-" + "proj-", ALNUM + "_x-", ""),
    ("OpenAI key", "sk-" + "svcacct-", ALNUM, ""),
    ("OpenAI key", "sk-" + "or-v1-", "0123456789abcdef" * 4, ""),
    ("OpenAI key", "sk-", ALNUM, ""),
    ("AWS access key id", "AK" + "IA", "QM7XT2VLP9RK4WZN", ""),
    ("AWS access key id", "AS" + "IA", "QM7XT2VLP9RK4WZN", ""),
    ("AWS secret key", "AK" + "IA****************, ", B64, ""),
    ("AWS secret key", "aws_secret_access_key = ", B64, ""),
    ("AWS secret key", '"SecretAccessKey": "', B64, '"'),
    ("AWS secret key", "AWS_SESSION_TOKEN=", B64 * 3 + "==", ""),
    ("GitHub token", "gh" + "p_", ALNUM[:36], ""),
    ("GitHub token", "gh" + "o_", ALNUM[:36], ""),
    ("GitHub token", "github" + "_pat_", ALNUM[:22] + "_" + ALNUM, ""),
    ("Slack token", "xo" + "xb-", "1234567890-0987654321-" + ALNUM[:24], ""),
    ("Slack token", "xa" + "pp-", "1-A012345-987-" + ALNUM, ""),
    ("Slack webhook", "https://hooks.slack" + ".com/services/", "T0123456/B0123456/" + ALNUM[:24], ""),
    ("Google key", "AI" + "za", ALNUM[:35], ""),
    ("Google token", "ya" + "29.", "a0Af_" + ALNUM, ""),
    ("Stripe key", "sk" + "_live_", ALNUM[:24], ""),
    ("Stripe key", "rk" + "_test_", ALNUM[:24], ""),
    ("Stripe key", "wh" + "sec_", ALNUM[:32], ""),
    ("Google token", "GOC" + "SPX-", ALNUM[:28], ""),
    ("Hugging Face token", "h" + "f_", ALNUM[:34], ""),
    ("Groq key", "gs" + "k_", ALNUM + "a1B2", ""),
    ("xAI key", "xa" + "i-", ALNUM + ALNUM[:32], ""),
    ("Perplexity key", "pp" + "lx-", ALNUM, ""),
    ("Replicate token", "r" + "8_", ALNUM[:37], ""),
    ("LangSmith key", "ls" + "v2_pt_", HEX + "_0123456789", ""),
    ("GitLab token", "gl" + "pat-", ALNUM[:20], ""),
    ("npm token", "np" + "m_", ALNUM[:36], ""),
    ("PyPI token", "py" + "pi-Ag", "EIcHlwaS5vcmc" + ALNUM, ""),
    ("DigitalOcean token", "do" + "p_v1_", HEX + HEX, ""),
    ("Databricks token", "da" + "pi", HEX, ""),
    ("Azure key", "DefaultEndpointsProtocol=https;Account" + "Key=", ALNUM + ALNUM[:38] + "==", ""),
    ("Azure key", "SharedAccess" + "Key=", ALNUM[:43] + "=", ""),
    ("Azure key", "abc8" + "Q~", ALNUM[:34], ""),
    ("Azure key", "", ALNUM + "a1B2" + "JQQ" + "J9" + ALNUM[:27], ""),
    ("SendGrid key", "S" + "G.", ALNUM[:22] + "." + ALNUM[:43], ""),
    ("Telegram token", "1234567890" + ":AA", ALNUM[:33], ""),
    ("Twilio key", "S" + "K", HEX, ""),
    ("Twilio key", "A" + "C", HEX, ""),
    ("Discord token", "MTk4NjIyNDgzNDcxOTI1MjQ4" + ".", "Cl2FMQ." + ALNUM[:27], ""),
    ("private key", "-----BEGIN " + "PRIVATE KEY-----", f"\n{B64}\n{B64}\nAA==\n", "-----END PRIVATE KEY-----"),
    ("private key", "-----BEGIN RSA " + "PRIVATE KEY-----", f"\nDEK-Info: AES-128-CBC,00\n\n{B64}\n", "-----END"),
    ("private key", "-----BEGIN PGP " + "PRIVATE KEY BLOCK-----", f"\r\nVersion: 1\r\n\r\n{B64}\r\n", "-----END"),
    ("private key", "-----BEGIN " + "PRIVATE KEY-----", f"\n{B64}", ""),
    ("JSON Web Token", "", f"{JWT_HEAD}.{JWT_CLAIMS}.{ALNUM[:43]}", ""),
    ("JSON Web Token", "", f"{JWT_HEAD}.{JWT_CLAIMS}", ""),
    ("bearer token", "Bearer ", ALNUM[:24], ""),
    ("bearer token", "authorization: bearer ", "a-._~+/" + ALNUM[:16] + "==", ""),
    ("Basic credentials", "Authorization: Basic ", base64.b64encode(b"Aladdin:open sesame").decode(), ""),
    ("password in a URL", "https://aladdin:", "open-sesame", "@example.com/"),
    ("password in a URL", "postgresql://db:", "x", "@[::1]/"),
    ("password in a URL", "redis://:", "open:sesame!", "@localhost"),
    ("key in a query", "https://example.com/v1?key=", "open-sesame", "&a=b"),
    ("key in a query", "/v1/messages?beta=true&api_key=", "open-sesame", ""),
    ("key in a query", "/a?token=", "open-sesame", " HTTP/1.1"),
    ("key in a query", "https://a.b/#access_token=", "open-sesame", ""),
    ("key in a query", "https://a.b/c?X-Amz-Signature=", "0123456789abcdef", "&x=y"),
    ("key in a query", "client_secret=", "open-sesame", "&grant_type=client_credentials"),
]
"""Shape, the text before the secret, the secret, the text after it."""
