"""Spanish: surroundings, shared intents, telecom."""

PHRASES = """
$ first: Álvaro; Begoña; Carmen; Diego; Elena; Íñigo; Julia; Lucía; Martín; Noelia; Óscar; Pilar; Raúl; Sofía; Tomás
$ last: Álvarez; Benítez; Castaño; Domínguez; Espín; Fernández; Gálvez; Ibáñez; Muñoz; Núñez; Peña; Sáez; Yáñez
$ agent: Marta; Íker; Andrés; Lucía; Ramón
$ city: Málaga; León; Cádiz; Bogotá; Monterrey; Córdoba; Gijón; Mérida; Lima; Zaragoza
$ day: lunes; martes; miércoles; jueves; viernes; sábado
$ time: las {8-12} de la mañana; las {2-9} de la tarde; las {9-20}:[15|30|45]; mediodía
$ amount: {5-180} euros; {12-320},{dd} €; {4-90},{dd} euros; {200-900} pesos
$ days: {2-9} días; una semana; dos semanas; {3-6} semanas; casi un mes
$ device: iPhone; móvil; Samsung; portátil; tableta
$ browser: Chrome; Firefox; Safari; la app
$ phone: 6{dd} {ddd} {ddd}; +34 6{dd} {dd} {dd} {dd}; 9{dd} {ddd} {ddd}
$ street: calle Mayor {1-90}; avenida del Río {1-60}; plaza España {1-12}; calle Niño Jesús {2-40}
% greeting
- [Hola|Buenas|Buenos días|Buenas tardes|Muy buenas][| equipo| a todos| {company}],
- [Estimados señores|Estimado equipo de {company}],
% chat_greeting
- [hola|buenas|buenos días|holaa]
% opening
- espero que [estén bien|todo vaya bien|me puedan ayudar]
- soy cliente desde [hace {2-9} años|20{10-22}] y [nunca había tenido quejas|siempre he estado contento]
- [ya he|he] [llamado|mirado la ayuda|probado el chat] y [nadie me soluciona nada|no hay manera]
- es [la segunda|la tercera] vez que [escribo|les escribo] por [esto|lo mismo]
- [una|solo una] pregunta [rápida|corta]
- el {day} hablé con {agent} y me dijo que [escribiera aquí|mandara un correo]
% aside
- aquí en {city} [no para de llover|hace un calor horrible] y [no tengo más paciencia|no puedo salir]
- [mi mujer|mi marido|mi vecina|un compañero] me [recomendó|habló de] [su empresa|esta compañía]
- [trabajo a turnos|viajo mucho|estamos de mudanza], [mejor por correo|así que me cuesta atender el teléfono]
- [adjunto|mando|les paso] [una foto|una captura|una imagen]
- [uso|tengo] [un|mi] {device} con {browser}[, por si sirve|]
- estuve {10-50} minutos [en espera|al teléfono] [y se cortó|y colgué|]
- la cuenta está a nombre de {email}
- [no es el fin del mundo|no es tan grave], pero [me molesta|quiero resolverlo]
- [por lo demás|en general] [estoy contento|todo bien|me gusta el servicio]
- [empezó|pasó] el [{day}|{date}] [por la noche|sobre {time}|]
% urgency
- es [muy |bastante |]urgente
- necesito [una respuesta|una solución] [hoy|antes del {day}|cuanto antes]
- [por favor|les ruego] [dense prisa|traten esto con prioridad]
% ask
- ¿[me pueden|pueden|podrían] [ayudar|echar una mano|revisarlo|decir algo]?
- ¿qué [hago|puedo hacer|tengo que hacer] [ahora|]?
- [quedo a la espera|espero su respuesta|díganme algo] [por favor|]
- [avísenme|díganme] si [falta algún dato|necesitan algo más]
% thanks
- [gracias|muchas gracias|mil gracias][ de antemano| por la ayuda| por su tiempo|]
% closing
- [Un saludo|Saludos|Saludos cordiales|Atentamente|Un abrazo],
% signature
- {me}
- {name}
- {name}
- {name}\\n{phone}
- {name}\\n{street}, {city}
% device
- Enviado desde mi [iPhone|móvil|Samsung|iPad]
- Este mensaje es confidencial y va dirigido solo a su destinatario.
% quote_head
- El {date_long} a las {clock}, {company} <{support}> escribió:
- -----Mensaje original-----\\nDe: {company}\\nEnviado: {date_long} {clock}
% quote
- Hola, {me}:
- Gracias por escribir a {company}.
- Le responderemos en {12-48} horas.
- Su número de caso es {ddddddd}.
- ¿Nos puede enviar [una captura|más datos|su número de cliente]?
- Un saludo, {agent}
% also
- [además|otra cosa|por cierto|aprovecho]: {other}
- [hace un mes|en primavera|el otro día] [les escribí|tuve otro caso] porque {other}, [eso ya está|era otro asunto]
- [no sé si tiene relación|quizá tenga que ver], pero {other}
% vague
- [tengo|hay] [un problema|algo raro] con [mi cuenta|lo último|esto]
- [esto|eso] [no funciona|no va|está mal] [otra vez|para nada|]
- [por favor|] [llámenme|contáctenme] [por {order}|por mi solicitud|sobre esto]
- [vean|miren] [el adjunto|abajo|mi correo anterior]
- sigo [esperando|sin respuesta] [sobre {order}|a mi mensaje]
% subject
- [Ayuda|Consulta|Problema|Duda|Solicitud|Incidencia]
- [mi cuenta|mi pedido|{order}|su correo del {date}]
% subject_prefix
- [RE: |Re: |URGENTE: |RV: ]
"""

COMMON = """
@ login | Cuenta | No puedo entrar
= Use "Olvidé mi contraseña" en la página de acceso; el enlace vale una hora.
! [no puedo entrar|problema de acceso|contraseña]
- no puedo [entrar|iniciar sesión|acceder] [en mi cuenta|a la app|]
- la contraseña [no me la acepta|no funciona|dice que es incorrecta]
- el correo para [cambiar|restablecer] la contraseña no [llega|funciona]
- mi cuenta está [bloqueada|cerrada tras {3-5} intentos]
+ lo [intenté|he probado] {2-6} veces
? ¿[pueden|podrían] [desbloquearla|mandarme otro enlace]?
@ two_factor | Cuenta | No llega el código | login
= El código suele llegar en un minuto. Revise el teléfono de su perfil; si es nuevo, lo cambiamos nosotros.
! código [no llega|de verificación|inválido]
- no me llega el [código|SMS de verificación|código de seguridad]
- cambié de [móvil|número] y [ya no tengo los códigos|la verificación va al viejo]
- el código [siempre|] [sale como inválido|está caducado]
- me quedo en la pantalla [del código|de verificación en dos pasos]
+ mi número nuevo es {phone}
? ¿pueden [quitar la verificación|enviarlo por correo]?
@ change_contact | Cuenta | Cambiar correo, teléfono o nombre
= Puede cambiar sus datos en Ajustes, Perfil. Escribimos a la dirección antigua y a la nueva.
! cambio de [correo|teléfono|nombre|datos]
- quiero [cambiar|actualizar] mi [correo|teléfono|dirección de contacto]
- mi apellido [está mal escrito|ahora es {last}]
- siguen [escribiendo|mandando todo] a mi correo viejo
- hay un error en [mi nombre|los datos de mi perfil]
+ el nuevo es {email}
? ¿dónde se cambia?
@ delete_account | Privacidad | Borrar cuenta y datos
= Borramos la cuenta y los datos en 30 días; las facturas se guardan por ley.
! [borrar|eliminar] [cuenta|datos]
- quiero [borrar|eliminar|cerrar] mi [cuenta|perfil] [y todos mis datos|para siempre|]
- según [el RGPD|la ley de datos] pido [la supresión|que borren] [de mis datos|lo que tengan mío]
- ¿qué datos [tienen|guardan] de mí?
- ¿cómo [elimino|borro] mi [cuenta|usuario]?
+ ya no uso [el servicio|la app]
? confirmen [el borrado|por escrito], por favor
@ unsubscribe | Privacidad | No quiero publicidad | delete_account
= Lo hemos sacado de la lista; puede tardar dos días en dejar de recibir mensajes.
! [publicidad|boletín|darme de baja del boletín]
- [no quiero|dejen de enviarme] [más publicidad|boletines|promociones]
- recibo [correos|mensajes] de publicidad [todos los días|sin parar]
- el enlace de baja [no funciona|da error]
- me [borré|di de baja] de la lista {2-4} veces y [siguen llegando|no paran]
+ nunca [lo pedí|di permiso]
? [quítenme|sáquenme] de la lista
@ invoice | Facturación | Copia de factura
= Todas las facturas están en PDF en Cuenta, Documentos. Adjuntamos la que pide.
! factura [pendiente|copia|con datos mal|no recibida]
- [necesito|no encuentro|me falta] la factura [de {date}|de {order}|del mes pasado]
- [me pueden|por favor] [enviar|mandar] la factura en PDF
- la factura [lleva mal el NIF|está a nombre de otro|tiene la dirección antigua]
- [mi gestor|contabilidad] me pide [las facturas|un recibo]
+ la empresa es {last} e Hijos
? ¿la mandan a {email}?
@ charged_twice | Facturación | Cobro doble | payment_failed
= A veces uno de los cargos es una reserva y desaparece en cinco días. Si no, lo devolvemos enseguida.
! cobro [doble|duplicado|de más]
- me [han cobrado|cobraron] [dos veces|doble|{amount} de más]
- en [el banco|la tarjeta] hay dos cargos de {amount}
- el importe cobrado es [mayor|más alto] que [lo acordado|lo que pone]
- {order} está [cobrado|pagado] dos veces
+ el banco dice que [los dos son firmes|no puede hacer nada]
? ¿cuándo me [devuelven|reembolsan] {amount}?
@ payment_failed | Facturación | Pago rechazado | charged_twice
= El banco rechazó el pago y no se ha cobrado nada. Revise el límite y la fecha de la tarjeta.
! pago [rechazado|fallido|con error]
- [mi pago|la tarjeta] [sale rechazado|no pasa|da error {ddd}]
- no [puedo|me deja] [pagar|poner la tarjeta]
- [al pagar|en el último paso] [sale un error|se queda pensando]
- el recibo [vino devuelto|no se pudo pasar]
+ en otros sitios [funciona|pasa bien]
? ¿hay otra forma de pagar?
@ promo_code | Ofertas | Código de descuento no funciona
= Mire la fecha y el mínimo del código. Le hemos dejado uno nuevo en su cuenta.
! [código|cupón|descuento] [no válido|no aplicado]
- el [cupón|código] {LL}{LL}{10-30} [no funciona|no es válido]
- no me [aplicaron|hicieron] el descuento del {10-30} por ciento
- se me olvidó [poner|meter] el [cupón|código]
- el bono [por traer a un amigo|de regalo] no [llegó|aparece]
+ vale hasta el {future}
? ¿me [hacen el descuento|mandan otro]?
@ complaint | Opinión | Queja | callback
= Lo sentimos mucho. He pasado su caso a mi responsable y tendrá respuesta en dos días.
! [queja|reclamación|muy descontento]
- quiero [poner|presentar] una [queja|reclamación] [formal|contra {agent}|]
- el [trato|servicio|soporte] es [pésimo|una vergüenza|malísimo]
- nadie [se hace cargo|responde], [me pasan de uno a otro|cada uno dice una cosa]
- estoy [muy|realmente] [decepcionado|molesta|indignado]
+ voy a [irme a otra compañía|denunciarlo|dejar una mala reseña]
? exijo [una disculpa|hablar con un responsable]
@ callback | Opinión | Que me llamen | complaint
= Le llamamos con gusto. Díganos dos horas que le vengan bien y un número.
! [llámenme|llamada|teléfono de contacto]
- [llámenme|pueden llamarme] al {phone}
- quiero hablar con [una persona|un humano]
- ¿[tienen|hay] un teléfono [de atención|]?
- [perdí|no pude coger] su llamada [del {day}|]
+ mejor [después de {time}|el {day}]
? ¿cuándo me llaman?
@ praise | Opinión | Felicitación
= ¡Muchas gracias por sus palabras! Las he compartido con el equipo.
! [gracias|felicitaciones|buen servicio]
- solo quería [dar las gracias|felicitar] [a {agent}|al equipo]
- {agent} fue [muy|tan] [amable|paciente|atento]
- todo [quedó|salió] [perfecto|muy bien]
- [qué|un] [buen|gran] servicio
+ los recomendaré
? [sigan así|no hace falta respuesta]
"""

TELECOM = """
$ product: Fibra 300; Fibra 1000; Ilimitada; Tarifa 20; Familia; TV Más; Prepago; Pase Viaje; Router Pro; Fijo
$ order: contrato {order_no}; cliente {order_no}; {order_no}; línea {order_no}
$ room: salón; dormitorio; despacho; cocina; ático
$ country: Francia; México; Turquía; Suiza; Japón; Marruecos
@ no_internet | Internet | Sin internet en casa | slow_internet
= Desenchufe el router un minuto. Si la luz sigue roja hay una avería y enviamos a un técnico.
! [sin internet|no hay conexión|avería]
- no [tengo|tenemos|hay] internet [desde el {day}|desde hace {days}|en casa]
- [la fibra|internet|la conexión] [se ha caído|no funciona|está muerta]
- la luz del router está [roja|naranja|apagada]
- la conexión se [corta|cae] cada {5-30} minutos
+ ya [reinicié|apagué] el router
? ¿hay una avería en {city}?
? ¿cuándo lo arreglan?
@ slow_internet | Internet | Internet lento | no_internet
= Mida por cable tres veces al día y envíenos los resultados. Cambiar el canal del wifi suele ayudar.
! [internet lento|poca velocidad|wifi lento]
- internet va [muy|demasiado|súper] lento [por la noche|desde el {day}|en el {room}]
- pago {300-1000} megas y me llegan {2-60}
- las [videollamadas|películas|descargas] se [cortan|paran]
- el wifi no llega [al {room}|bien]
+ por cable [igual|algo mejor]
? ¿pueden [revisar la línea|subir la velocidad]?
@ no_signal | Móvil | Sin cobertura
= Reinicie el teléfono y elija la red a mano. Hay obras en una antena hasta el fin de semana.
! [sin cobertura|sin señal|sin datos]
- no tengo [cobertura|señal|datos] [en {city}|en casa|desde el {day}]
- las llamadas se [cortan|caen] a los {2-9} minutos
- el móvil [pone|dice] [sin servicio|solo emergencias]
- no puedo [llamar|recibir llamadas|mandar mensajes]
? ¿hay problema con la antena?
@ roaming | Móvil | Roaming en el extranjero
= En la Unión no se paga roaming; fuera conviene el Pase Viaje. Se activa en la app.
! [roaming|viaje|uso en {country}]
- ¿[funciona|sirve] mi tarifa en {country}?
- me cobraron {amount} de [roaming|datos en {country}]
- estoy en {country} y [no tengo datos|no puedo llamar]
- ¿cómo [activo|contrato] [el roaming|el pase] [para {country}|]?
+ viajo el {future}
? ¿cuánto cuesta?
@ sim | Móvil | Tarjeta SIM y eSIM
= La SIM nueva funciona una hora después de meter su número en la app.
! [SIM|eSIM] [nueva|bloqueada|no activa]
- ¿cómo activo [la SIM|la eSIM|mi tarjeta nueva]?
- necesito [un duplicado de|otra|una nueva] SIM [porque perdí el móvil|]
- el código de la eSIM [no funciona|no llegó]
- la SIM [me pide el PUK|está bloqueada]
? ¿me mandan otra?
@ port_number | Móvil | Conservar mi número
= La portabilidad tarda hasta tres días laborables; le avisamos del día por mensaje.
! portabilidad [retrasada|duda|rechazada]
- quiero [traer|conservar] mi número [a {company}|]
- la portabilidad [se retrasa|fue rechazada|no avanza]
- me voy a otra compañía y [quiero llevarme|necesito liberar] el número
- desde la portabilidad no [recibo llamadas|funciona el número]
? ¿cuánto tarda?
@ bill_high | Facturación | Factura más alta | charged_twice
= La diferencia viene de llamadas fuera de la tarifa. Puede bloquear números especiales en la app.
! factura [muy alta|incorrecta|subida]
- la factura [viene|es] [muy alta|más cara], {amount} [en vez de {amount}|este mes]
- ¿qué es el cargo de {amount} [por servicios|de terceros|] en la factura?
- me dijeron {amount} al mes y cobran {amount}
- falta el descuento [prometido|acordado] en la factura
? ¿me lo [explican|corrigen]?
@ cancel_contract | Contrato | Dar de baja | change_plan
= Hemos anotado la baja; la fecha está en la carta. ¿Quiere oír antes una oferta?
! [baja|cancelar contrato|fin de contrato]
- quiero [dar de baja|cancelar] [la línea|el contrato|{product}]
- ¿cómo [cancelo|me doy de baja] [de {product}|]?
- pedí la baja el {date} y [siguen cobrando|nadie confirma]
- me han renovado [sin avisar|por un año] y [no quiero|me voy]
? ¿hay permanencia?
@ change_plan | Contrato | Cambiar de tarifa
= Puede cambiar desde el mes que viene; hay dos ofertas para usted en la app.
! [cambio de tarifa|oferta|renovar]
- quiero [cambiar|pasar] [de {product} |]a {product2}
- ¿qué [ofertas|tarifas] [tienen|hay] para clientes [antiguos|]?
- necesito más [datos|gigas|minutos]
- a los nuevos les cobran {amount} por {product}, [quiero lo mismo|no es justo]
? ¿me hacen una oferta?
@ move_house | Contrato | Mudanza
= Avísenos cuatro semanas antes; el traslado de la línea cuesta 29 euros.
! [mudanza|traslado|cambio de domicilio]
- [me mudo|nos mudamos] a {street} [el {future}|] [y quiero llevar internet|]
- ¿llega {product} a {street}?
- ya me mudé y [no han conectado|sigue sin ir] la línea
- ¿cómo [traslado|cambio] la línea a {city}?
? ¿cuánto cuesta el traslado?
@ technician | Internet | Cita del técnico
= El técnico llega entre las 8 y las 12 o entre las 12 y las 4 y llama media hora antes.
! [técnico|cita] [no vino|cambiar|fecha]
- el técnico no [vino|apareció] [el {day}|hoy|]
- quiero [cambiar|mover] la cita [del técnico|de instalación] [al {future}|]
- ¿a qué hora viene el técnico?
- esperé [todo el día|{4-9} horas] al técnico
+ pedí el día libre
? ¿me dan otra cita?
@ router | Internet | Router y equipos
= Pulse el botón de reinicio diez segundos; la clave del wifi está en la etiqueta.
! router [roto|clave|devolver|nuevo]
- el router [está roto|se reinicia solo|se calienta mucho]
- ¿cuál es la [clave|contraseña] del wifi?
- ¿cómo [instalo|configuro] el [router|repetidor] nuevo?
- ¿dónde devuelvo el router [viejo|]?
? ¿me lo cambian?
@ tv | Televisión | Canales y decodificador
= Haga una búsqueda de canales en Menú, Instalación.
! [televisión|canales|decodificador]
- [faltan|no se ven] [canales|los deportes] [desde el {day}|]
- el decodificador [no arranca|se bloquea|da error {ddd}]
- la tele se [congela|pixela] [cada noche|]
- el mando no [va|funciona]
? ¿cómo veo la tele en mi {device}?
"""
