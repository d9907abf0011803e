/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A number that the loader puts in. clang must not fold it into another one. */
#define CONSTANT(name) ({ u64 _value; asm volatile("%0 = %1" : "=r"(_value) : "i"(name)); _value; })
