/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Serial port: National Semiconductor NS16550A. "Section" below means its datasheet's section 8 (registers).
 *
 * The line has no speed: a character leaves the transmitter as soon as the backend takes it, and one that has come in below the
 * FIFO's trigger level counts as timed out at once, since no more are to be expected soon.
 */
#include <linux/serial_reg.h>

#include "devices/char/char.h"
#include "vmm/vm.h"

#define FIFO_SIZE    16
#define REGION_SIZE  8
#define INDEX_AUTO   UINT32_MAX
#define LINE_ERRORS  (UART_LSR_OE | UART_LSR_PE | UART_LSR_FE | UART_LSR_BI)
#define LSR_FIFO_ERR 0x80
/* The other end is there: Clear To Send, Data Set Ready, Data Carrier Detect. */
#define MSR_PRESENT  (UART_MSR_CTS | UART_MSR_DSR | UART_MSR_DCD)
#define MSR_LINES    (MSR_PRESENT | UART_MSR_RI)

struct serial {
	struct object obj;
	/* Options. */
	uint32_t index, iobase, irq;
	char *chardev;

	pthread_mutex_t lock;
	struct char_port port;
	struct irq_line line;

	uint8_t ier, fcr, lcr, mcr, msr, scr, rbr;
	uint16_t divisor;
	uint8_t errors;	     /* LSR bits 1 to 4, until LSR is read */
	uint8_t thr_pending; /* bool: the transmitter-empty interrupt is due */
	uint8_t tx[FIFO_SIZE], tx_head, tx_len;
	uint8_t rx[FIFO_SIZE], rx_error[FIFO_SIZE], rx_head, rx_len;
};

static bool fifo_on(const struct serial *s)
{
	return s->fcr & UART_FCR_ENABLE_FIFO;
}

static uint8_t fifo_size(const struct serial *s)
{
	return fifo_on(s) ? FIFO_SIZE : 1;
}

static bool loopback(const struct serial *s)
{
	return s->mcr & UART_MCR_LOOP;
}

static uint8_t trigger_level(const struct serial *s)
{
	static const uint8_t level[] = {1, 4, 8, 14};

	return fifo_on(s) ? level[s->fcr >> 6] : 1;
}

static uint8_t line_status(const struct serial *s)
{
	uint8_t lsr = s->errors;

	if (s->rx_len)
		lsr |= UART_LSR_DR;
	if (!s->tx_len)
		lsr |= UART_LSR_THRE | UART_LSR_TEMT;
	if (fifo_on(s))
		for (uint8_t i = 0; i < s->rx_len; i++)
			if (s->rx_error[(s->rx_head + i) % FIFO_SIZE])
				lsr |= LSR_FIFO_ERR;
	return lsr;
}

/* The pending interrupt of the highest priority (table "Interrupt Control Functions"). */
static uint8_t interrupt_id(const struct serial *s)
{
	if ((s->ier & UART_IER_RLSI) && (s->errors & LINE_ERRORS))
		return UART_IIR_RLSI;
	if ((s->ier & UART_IER_RDI) && s->rx_len)
		return s->rx_len >= trigger_level(s) ? UART_IIR_RDI : UART_IIR_RX_TIMEOUT;
	if ((s->ier & UART_IER_THRI) && s->thr_pending)
		return UART_IIR_THRI;
	if ((s->ier & UART_IER_MSI) && (s->msr & UART_MSR_ANY_DELTA))
		return UART_IIR_MSI;
	return UART_IIR_NO_INT;
}

static void update_irq(struct serial *s)
{
	irq_line_set(&s->line, interrupt_id(s) != UART_IIR_NO_INT);
}

/* An error shows in LSR when its character is the next to be read. */
static void show_error(struct serial *s)
{
	if (s->rx_len) {
		s->errors |= s->rx_error[s->rx_head];
		s->rx_error[s->rx_head] = 0;
	}
}

static void receive_char(struct serial *s, uint8_t c, uint8_t error)
{
	uint8_t at;

	if (s->rx_len == fifo_size(s)) {
		/* The FIFO keeps what it has; without a FIFO the new character replaces the old one. */
		s->errors |= UART_LSR_OE;
		if (!fifo_on(s))
			s->rx[s->rx_head] = c;
		return;
	}
	at = (s->rx_head + s->rx_len++) % FIFO_SIZE;
	s->rx[at] = c;
	s->rx_error[at] = error;
	show_error(s);
}

/* Take in as much as fits: the line waits, so that nothing overruns. */
static void receive(struct serial *s)
{
	int c;

	while (!loopback(s) && s->rx_len < fifo_size(s)) {
		c = char_port_get(&s->port);
		if (c < 0)
			return;
		receive_char(s, c, 0);
	}
}

static void transmit(struct serial *s)
{
	bool any = false;

	while (s->tx_len) {
		uint8_t c = s->tx[s->tx_head];

		if (loopback(s))
			receive_char(s, c, 0);
		else if (!char_port_put(&s->port, c))
			return;
		s->tx_head = (s->tx_head + 1) % FIFO_SIZE;
		s->tx_len--;
		any = true;
	}
	if (any)
		s->thr_pending = true;
}

static void clear_rx(struct serial *s)
{
	s->rx_head = s->rx_len = 0;
	memset(s->rx_error, 0, sizeof(s->rx_error));
}

static void clear_tx(struct serial *s)
{
	if (s->tx_len)
		s->thr_pending = true;
	s->tx_head = s->tx_len = 0;
}

/* Modem lines, and what has changed since MSR was last read. In loopback they are MCR's outputs. */
static void update_modem(struct serial *s)
{
	uint8_t lines = MSR_PRESENT, old = s->msr & MSR_LINES, delta;

	if (loopback(s))
		lines = (s->mcr & UART_MCR_DTR ? UART_MSR_DSR : 0) |
			(s->mcr & UART_MCR_RTS ? UART_MSR_CTS : 0) |
			(s->mcr & UART_MCR_OUT1 ? UART_MSR_RI : 0) |
			(s->mcr & UART_MCR_OUT2 ? UART_MSR_DCD : 0);
	delta = (lines ^ old) >> 4;
	/* The ring indicator counts at its trailing edge only. */
	if (lines & UART_MSR_RI)
		delta &= ~UART_MSR_TERI;
	s->msr = lines | (s->msr & UART_MSR_ANY_DELTA) | delta;
}

static void write_thr(struct serial *s, uint8_t value)
{
	s->thr_pending = false;
	if (s->tx_len == fifo_size(s)) {
		/* The driver did not wait for THRE: the character is lost, or replaces the one that waits. */
		if (!fifo_on(s))
			s->tx[s->tx_head] = value;
		return;
	}
	s->tx[(s->tx_head + s->tx_len++) % FIFO_SIZE] = value;
	transmit(s);
}

static void write_fcr(struct serial *s, uint8_t value)
{
	bool toggled = (value ^ s->fcr) & UART_FCR_ENABLE_FIFO;

	if (toggled || (value & UART_FCR_CLEAR_RCVR))
		clear_rx(s);
	if (toggled || (value & UART_FCR_CLEAR_XMIT))
		clear_tx(s);
	/* Bit 0 must be set for the others to be programmed. */
	s->fcr = value & UART_FCR_ENABLE_FIFO ? value & (UART_FCR_ENABLE_FIFO | 0xc0) : 0;
	receive(s);
}

static void write_lcr(struct serial *s, uint8_t value)
{
	bool starts = (value & ~s->lcr) & UART_LCR_SBC;

	s->lcr = value;
	/* A break on a line that is looped back comes in as one zero with Break Interrupt. */
	if (starts && loopback(s))
		receive_char(s, 0, UART_LSR_BI);
}

static void write_reg(struct serial *s, uint8_t reg, uint8_t value)
{
	switch (reg) {
	case UART_TX:
		if (s->lcr & UART_LCR_DLAB)
			s->divisor = (s->divisor & 0xff00) | value;
		else
			write_thr(s, value);
		break;
	case UART_IER:
		if (s->lcr & UART_LCR_DLAB) {
			s->divisor = (s->divisor & 0xff) | value << 8;
			break;
		}
		if ((value & ~s->ier) & UART_IER_THRI)
			s->thr_pending |= !s->tx_len;
		s->ier = value & 0x0f;
		break;
	case UART_FCR:
		write_fcr(s, value);
		break;
	case UART_LCR:
		write_lcr(s, value);
		break;
	case UART_MCR:
		s->mcr = value & 0x1f;
		update_modem(s);
		transmit(s);
		receive(s);
		break;
	case UART_SCR:
		s->scr = value;
		break;
	}
}

static uint8_t read_rbr(struct serial *s)
{
	if (s->rx_len) {
		s->rbr = s->rx[s->rx_head];
		s->rx_head = (s->rx_head + 1) % FIFO_SIZE;
		s->rx_len--;
		show_error(s);
		receive(s);
	}
	return s->rbr;
}

static uint8_t read_reg(struct serial *s, uint8_t reg)
{
	uint8_t value;

	switch (reg) {
	case UART_RX:
		return s->lcr & UART_LCR_DLAB ? s->divisor & 0xff : read_rbr(s);
	case UART_IER:
		return s->lcr & UART_LCR_DLAB ? s->divisor >> 8 : s->ier;
	case UART_IIR:
		value = interrupt_id(s);
		if (value == UART_IIR_THRI)
			s->thr_pending = false;
		return value | (fifo_on(s) ? 0xc0 : 0);
	case UART_LCR:
		return s->lcr;
	case UART_MCR:
		return s->mcr;
	case UART_LSR:
		value = line_status(s);
		s->errors = 0;
		return value;
	case UART_MSR:
		value = s->msr;
		s->msr &= ~UART_MSR_ANY_DELTA;
		return value;
	default:
		return s->scr;
	}
}

/* The bus is 8 bits wide: a wider access is one to each register, lowest first. */
static uint64_t serial_read(void *opaque, uint64_t offset, unsigned int size)
{
	struct serial *s = opaque;
	uint64_t value = 0;

	for (unsigned int i = 0; i < size; i++)
		value |= (uint64_t)read_reg(s, offset + i) << (8 * i);
	update_irq(s);
	return value;
}

static void serial_write(void *opaque, uint64_t offset, uint64_t value, unsigned int size)
{
	struct serial *s = opaque;

	for (unsigned int i = 0; i < size; i++)
		write_reg(s, offset + i, value >> (8 * i));
	update_irq(s);
}

static const struct io_ops serial_io_ops = {
	.read = serial_read,
	.write = serial_write,
};

/* Input has come, or output has room again. In the loop. */
static void port_changed(void *opaque)
{
	struct serial *s = opaque;

	pthread_mutex_lock(&s->lock);
	receive(s);
	transmit(s);
	update_irq(s);
	pthread_mutex_unlock(&s->lock);
}

static void reset_registers(struct serial *s)
{
	s->ier = s->fcr = s->lcr = s->mcr = s->rbr = s->errors = 0;
	s->msr = MSR_PRESENT;
	s->divisor = 0;
	s->thr_pending = false;
	s->tx_head = s->tx_len = 0;
	clear_rx(s);
}

static void serial_reset(struct object *obj)
{
	struct serial *s = container_of(obj, struct serial, obj);

	pthread_mutex_lock(&s->lock);
	reset_registers(s);
	s->scr = 0;
	receive(s);
	update_irq(s);
	pthread_mutex_unlock(&s->lock);
}

static bool index_used(struct vm *vm, const struct class *cls, uint32_t index)
{
	struct object *obj;

	list_for_each(obj, &vm->objects[CLASS_DEVICE], link)
		if (obj->class == cls && container_of(obj, struct serial, obj)->index == index)
			return true;
	return false;
}

/* COM1 to COM4, as on every PC. */
static int choose_place(struct serial *s, struct hako_error *err)
{
	static const uint16_t base[] = {0x3f8, 0x2f8, 0x3e8, 0x2e8};
	static const uint8_t irq[] = {4, 3, 4, 3};
	uint32_t n = s->index;

	if (n == INDEX_AUTO)
		for (n = 0; n < ARRAY_SIZE(base) && index_used(s->obj.vm, s->obj.class, n);)
			n++;
	if (n >= ARRAY_SIZE(base))
		return error_set(err, -EINVAL, "index: there are four serial ports, 0 to 3");
	if (index_used(s->obj.vm, s->obj.class, n))
		return error_set(err, -EEXIST, "index=%u: there is such a serial port already", n);
	s->index = n;
	if (!s->iobase)
		s->iobase = base[n];
	if (!s->irq)
		s->irq = irq[n];
	return 0;
}

static int serial_create(struct object *obj, struct hako_error *err)
{
	struct serial *s = container_of(obj, struct serial, obj);
	struct io_region region = {
		.name = "isa-serial",
		.size = REGION_SIZE,
		.ops = &serial_io_ops,
		.opaque = s,
		.lock = &s->lock,
	};
	int ret;

	ret = choose_place(s, err);
	if (ret)
		return ret;
	pthread_mutex_init(&s->lock, NULL);
	irq_line_init(&s->line, obj->vm, s->irq);
	reset_registers(s);
	ret = char_port_init(&s->port, obj->vm, s->chardev, port_changed, s, err);
	if (ret)
		goto out_lock;
	region.base = s->iobase;
	ret = bus_add(&obj->vm->pio, &region, err);
	if (!ret)
		return 0;
	char_port_free(&s->port);
out_lock:
	pthread_mutex_destroy(&s->lock);
	return ret;
}

static void serial_destroy(struct object *obj)
{
	struct serial *s = container_of(obj, struct serial, obj);

	bus_remove(&obj->vm->pio, s->iobase, s);
	char_port_free(&s->port);
	irq_line_set(&s->line, false);
	pthread_mutex_destroy(&s->lock);
}

static void serial_pause(struct object *obj)
{
	char_port_pause(&container_of(obj, struct serial, obj)->port);
}

static void serial_resume(struct object *obj)
{
	char_port_resume(&container_of(obj, struct serial, obj)->port);
}

static int serial_post_load(void *obj, uint16_t version, struct hako_error *err)
{
	struct serial *s = obj;

	s->ier &= 0x0f;
	s->mcr &= 0x1f;
	s->errors &= LINE_ERRORS;
	s->fcr = fifo_on(s) ? s->fcr & (UART_FCR_ENABLE_FIFO | 0xc0) : 0;
	if (s->rx_head >= FIFO_SIZE || s->rx_len > fifo_size(s) || s->tx_head >= FIFO_SIZE ||
	    s->tx_len > fifo_size(s)) {
		reset_registers(s);
		return error_set(err, -EINVAL, "isa-serial: bad FIFO positions");
	}
	for (unsigned int i = 0; i < FIFO_SIZE; i++)
		s->rx_error[i] &= LINE_ERRORS;
	update_irq(s);
	return 0;
}

static const struct state_field serial_fields[] = {
	STATE_FIELD_UINT(struct serial, ier),
	STATE_FIELD_UINT(struct serial, fcr),
	STATE_FIELD_UINT(struct serial, lcr),
	STATE_FIELD_UINT(struct serial, mcr),
	STATE_FIELD_UINT(struct serial, msr),
	STATE_FIELD_UINT(struct serial, scr),
	STATE_FIELD_UINT(struct serial, rbr),
	STATE_FIELD_UINT(struct serial, divisor),
	STATE_FIELD_UINT(struct serial, errors),
	STATE_FIELD_UINT(struct serial, thr_pending),
	STATE_FIELD_BYTES(struct serial, tx),
	STATE_FIELD_UINT(struct serial, tx_head),
	STATE_FIELD_UINT(struct serial, tx_len),
	STATE_FIELD_BYTES(struct serial, rx),
	STATE_FIELD_BYTES(struct serial, rx_error),
	STATE_FIELD_UINT(struct serial, rx_head),
	STATE_FIELD_UINT(struct serial, rx_len),
	STATE_FIELD_STRUCT(struct serial, port, &char_port_state),
	STATE_END,
};

static const struct state_table serial_state = {
	.name = "isa-serial",
	.version = 1,
	.min_version = 1,
	.fields = serial_fields,
	.post_load = serial_post_load,
};

static const struct option serial_options[] = {
	OPT_UINT("index", struct serial, index, "4294967295", 0, 0,
		 "0 to 3 for COM1 to COM4; default: the first that is free"),
	OPT_UINT("iobase", struct serial, iobase, NULL, 0, 0xfff8,
		 "first of eight ports; 0: by the index"),
	OPT_UINT("irq", struct serial, irq, NULL, 0, 15, "ISA interrupt; 0: by the index"),
	OPT_STRING("chardev", struct serial, chardev, NULL, "host side, by its id"),
	OPT_END,
};

static const struct class serial_class = {
	.name = "isa-serial",
	.help = "serial port (16550A)",
	.kind = CLASS_DEVICE,
	.bus = BUS_SYSTEM,
	.size = sizeof(struct serial),
	.options = serial_options,
	.state = &serial_state,
	.create = serial_create,
	.destroy = serial_destroy,
	.reset = serial_reset,
	.pause = serial_pause,
	.resume = serial_resume,
};
HAKO_CLASS(serial_class);
