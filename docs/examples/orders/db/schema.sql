create table orders (
    number serial primary key,
    item text not null,
    made_by text not null
);

