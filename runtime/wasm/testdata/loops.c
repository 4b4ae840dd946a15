// The workloads by which the cost of interruption checks is judged: a matrix
// multiplication, SHA-256 and a JSON parse, and three tight loops. Each takes the
// number of rounds and returns something that depends on the work.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT(name) __attribute__((export_name(#name)))

// Matrix multiplication.
#define N 96
static double a[N][N], b[N][N], c[N][N];

EXPORT(matrix) uint32_t matrix(uint32_t rounds) {
	for (int i = 0; i < N; i++)
		for (int j = 0; j < N; j++)
			a[i][j] = i + j, b[i][j] = i - j;
	double sum = 0;
	for (uint32_t r = 0; r < rounds; r++) {
		for (int i = 0; i < N; i++)
			for (int j = 0; j < N; j++) {
				double s = 0;
				for (int k = 0; k < N; k++)
					s += a[i][k] * b[k][j];
				c[i][j] = s;
			}
		sum += c[r % N][3];
	}
	return (uint32_t)(int64_t)sum;
}

// SHA-256 (FIPS 180-4).
static const uint32_t K[64] = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be,
	0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa,
	0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85,
	0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3,
	0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f,
	0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

#define ROR(x, n) ((x) >> (n) | (x) << (32 - (n)))

static void block(uint32_t h[8], const uint8_t *p) {
	uint32_t w[64];
	for (int i = 0; i < 16; i++)
		w[i] = (uint32_t)p[4 * i] << 24 | p[4 * i + 1] << 16 | p[4 * i + 2] << 8 | p[4 * i + 3];
	for (int i = 16; i < 64; i++) {
		uint32_t s0 = ROR(w[i - 15], 7) ^ ROR(w[i - 15], 18) ^ w[i - 15] >> 3;
		uint32_t s1 = ROR(w[i - 2], 17) ^ ROR(w[i - 2], 19) ^ w[i - 2] >> 10;
		w[i] = w[i - 16] + s0 + w[i - 7] + s1;
	}
	uint32_t v[8];
	memcpy(v, h, 32);
	for (int i = 0; i < 64; i++) {
		uint32_t s1 = ROR(v[4], 6) ^ ROR(v[4], 11) ^ ROR(v[4], 25);
		uint32_t t1 = v[7] + s1 + ((v[4] & v[5]) ^ (~v[4] & v[6])) + K[i] + w[i];
		uint32_t s0 = ROR(v[0], 2) ^ ROR(v[0], 13) ^ ROR(v[0], 22);
		uint32_t t2 = s0 + ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
		v[7] = v[6], v[6] = v[5], v[5] = v[4], v[4] = v[3] + t1, v[3] = v[2], v[2] = v[1], v[1] = v[0], v[0] = t1 + t2;
	}
	for (int i = 0; i < 8; i++)
		h[i] += v[i];
}

static uint8_t message[16384];

EXPORT(sha256) uint32_t sha256(uint32_t rounds) {
	uint32_t h[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
	for (uint32_t r = 0; r < rounds; r++)
		for (unsigned i = 0; i < sizeof message; i += 64)
			block(h, message + i);
	return h[0];
}

// JSON: a recursive parser that counts values and adds numbers up.
static char text[32768];

static const char *ws(const char *p) {
	while (*p == ' ' || *p == '\n' || *p == '\t' || *p == '\r')
		p++;
	return p;
}

static const char *value(const char *p, uint32_t *sum) {
	p = ws(p);
	++*sum;
	switch (*p) {
	case '{':
	case '[': {
		char close = *p == '{' ? '}' : ']';
		p = ws(p + 1);
		if (*p == close)
			return p + 1;
		for (;;) {
			if (close == '}') {
				p = value(p, sum);
				p = ws(p);
				if (*p++ != ':')
					abort();
			}
			p = ws(value(p, sum));
			if (*p == close)
				return p + 1;
			if (*p++ != ',')
				abort();
		}
	}
	case '"': {
		uint32_t h = 0;
		for (p++; *p != '"'; p++) {
			if (*p == '\\')
				p++;
			h = h * 31 + (uint8_t)*p;
		}
		*sum += h & 15;
		return p + 1;
	}
	default: {
		if (*p >= 'a')
			while (*p >= 'a')
				p++;
		else {
			uint32_t n = 0;
			while ((*p >= '0' && *p <= '9') || *p == '-' || *p == '.')
				n = n * 10 + (uint32_t)(*p++ - '0');
			*sum += n;
		}
		return p;
	}
	}
}

EXPORT(json) uint32_t json(uint32_t rounds) {
	static const char one[] = "{\"id\": 12345, \"name\": \"some name of a \\\"thing\\\"\", \"tags\": [\"red\", \"green\", \"blue\"], "
							  "\"nested\": {\"ok\": true, \"none\": null, \"pi\": 3.14159, \"list\": [1, 2, 3, 4, 5, 6, 7, 8]}},\n  ";
	char *t = text;
	*t++ = '[';
	while (t < text + sizeof text - 2 * sizeof one) {
		memcpy(t, one, sizeof one - 1);
		t += sizeof one - 1;
	}
	*t++ = '0', *t++ = ']', *t = 0;
	uint32_t sum = 0;
	for (uint32_t r = 0; r < rounds; r++)
		value(text, &sum);
	return sum;
}

// Three tight loops: a dependent chain, a sum over bytes, a search.
EXPORT(chain) uint32_t chain(uint32_t rounds) {
	uint32_t x = 1;
	for (uint32_t i = 0; i < rounds * 100000; i++)
		x ^= x << 13, x ^= x >> 17, x ^= x << 5;
	return x;
}

EXPORT(bytes) uint32_t bytes(uint32_t rounds) {
	uint32_t sum = 0;
	for (uint32_t r = 0; r < rounds; r++) {
		message[r % sizeof message] = r;
#pragma clang loop unroll(disable) vectorize(disable)
		for (unsigned i = 0; i < sizeof message; i++)
			sum += message[i];
	}
	return sum;
}

EXPORT(search) uint32_t search(uint32_t rounds) {
	uint32_t found = 0;
	for (uint32_t r = 0; r < rounds; r++) {
		message[sizeof message - 1] = (uint8_t)(r | 1);
		const uint8_t *p = message;
#pragma clang loop unroll(disable)
		while (!*p)
			p++;
		found += (uint32_t)(p - message);
	}
	return found;
}
